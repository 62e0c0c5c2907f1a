//! Calls the builtin task `echo`. Needs a broker and a worker:
//!
//! ```text
//! asynqd &
//! asynq-worker --builtins &
//! cargo run -p asynq-client --example hello
//! ```

use asynq_client::{Client, Error, Task};

const ECHO: Task<String, String> = Task::new("echo");

#[tokio::main]
async fn main() -> Result<(), Error> {
    let broker = std::env::var("ASYNQ_BROKER").unwrap_or_else(|_| "http://127.0.0.1:7740".to_owned());
    let client = Client::connect(&broker).await?;
    let said = client.call(ECHO, &"hello, world".to_owned()).await?;
    println!("{said}");
    Ok(())
}
