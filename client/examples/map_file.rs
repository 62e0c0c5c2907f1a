//! Runs a task for each line of a file, many at a time, and prints the results in order. Needs the worker `texts`:
//!
//! ```text
//! cargo run -p asynq-worker --example texts &
//! cargo run -p asynq-client --example map_file -- README.md
//! ```

use std::{error::Error, fs::File, io::BufRead, io::BufReader};

use asynq_client::{Client, Task};

const COUNT: Task<String, usize> = Task::new("text.count");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("give a file")?;
    let broker = std::env::var("ASYNQ_BROKER").unwrap_or_else(|_| "http://127.0.0.1:7740".to_owned());
    let client = Client::connect(&broker).await?;

    // Lines are read as they are needed: the file may be larger than memory.
    let lines = BufReader::new(File::open(path)?).lines().map_while(Result::ok);
    let mut counts = client.map(COUNT, lines).look_ahead(64);
    let mut total = 0;
    while let Some(words) = counts.try_next().await? {
        println!("{words}");
        total += words;
    }
    println!("{total} words");
    Ok(())
}
