//! Two tasks in a row: each line of stdin is cleaned, then its words are counted. While one line is counted, others
//! are cleaned. Needs the worker `texts`:
//!
//! ```text
//! cargo run -p asynq-worker --example texts &
//! printf 'To BE\nor   not' | cargo run -p asynq-client --example pipeline
//! ```

use std::{error::Error, io};

use asynq_client::{Client, Task};

const CLEAN: Task<String, String> = Task::new("text.clean");
const COUNT: Task<String, usize> = Task::new("text.count");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = std::env::var("ASYNQ_BROKER").unwrap_or_else(|_| "http://127.0.0.1:7740".to_owned());
    let client = Client::connect(&broker).await?;

    let lines: Vec<String> = io::read_to_string(io::stdin())?.lines().map(str::to_owned).collect();
    let mut cleaned = client.map(CLEAN, lines).queue("clean");
    let mut counted = Vec::new();
    while let Some(line) = cleaned.try_next().await? {
        // It runs from now on; its result is asked for below.
        let count = client.enqueue(COUNT, &line).queue("count").await?;
        counted.push((line, count));
    }
    for (line, count) in counted {
        println!("{} {line}", count.result().await?);
    }
    Ok(())
}
