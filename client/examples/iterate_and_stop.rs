//! Reads a task's items as they come, and stops it when it has seen enough. Needs the worker `texts`:
//!
//! ```text
//! cargo run -p asynq-worker --example texts &
//! cargo run -p asynq-client --example iterate_and_stop -- "to be or not to be" not
//! ```

use std::error::Error;

use asynq_client::{Client, Iter, OnLoss};

const WORDS: Iter<String, String> = Iter::new("text.words", OnLoss::Replay);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(text), Some(wanted)) = (args.next(), args.next()) else {
        return Err("give a text and a word to look for".into());
    };
    let broker = std::env::var("ASYNQ_BROKER").unwrap_or_else(|_| "http://127.0.0.1:7740".to_owned());
    let client = Client::connect(&broker).await?;

    // The worker runs ahead by two items at most; what is not asked for is not computed.
    let mut words = client.iterate(WORDS, &text).window(2).await?;
    while let Some(word) = words.try_next().await? {
        if word == wanted {
            let taken = words.taken();
            let end = words.stop().await?; // dropping it does the same, and does not wait
            println!("{wanted} is word {taken}; the task is {}", end.state);
            return Ok(());
        }
    }
    println!("{wanted} is not there");
    Ok(())
}
