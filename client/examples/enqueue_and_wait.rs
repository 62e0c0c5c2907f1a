//! Enqueues a task and waits for it, so that it is one task however often this program is killed and run again.
//! Needs the worker `texts`:
//!
//! ```text
//! cargo run -p asynq-worker --example texts &
//! cargo run -p asynq-client --example enqueue_and_wait -- id.txt "Some   TEXT"
//! ```

use std::{error::Error, fs, io::ErrorKind};

use asynq_client::{Client, Task, TaskId};

const CLEAN: Task<String, String> = Task::new("text.clean");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(text)) = (args.next(), args.next()) else {
        return Err("give a file for the task's id, and a text".into());
    };
    let broker = std::env::var("ASYNQ_BROKER").unwrap_or_else(|_| "http://127.0.0.1:7740".to_owned());
    let client = Client::connect(&broker).await?;

    let mut enqueue = client.enqueue(CLEAN, &text).series("examples").retries(2);
    match fs::read_to_string(&file) {
        // A run before this one may have sent it: the same id twice is one task.
        Ok(id) => enqueue = enqueue.id_again(id.trim().parse::<TaskId>()?),
        // The id is known before anything is sent, so it can be kept first.
        Err(error) if error.kind() == ErrorKind::NotFound => fs::write(&file, enqueue.id().to_string())?,
        Err(error) => return Err(error.into()),
    }
    let handle = enqueue.await?; // it is durable now
    println!("{}: {}", handle.id(), handle.result().await?);
    Ok(())
}
