//! Reaching the broker within the time the user has, and keeping count of it.

use std::time::{Duration, Instant};

use asynq_client::Client;
use tokio::time::timeout;

use crate::failure::Failure;

/// A connected client and what is left of `--wait`.
pub(crate) struct Connected {
    pub(crate) client: Client,
    begun: Instant,
    wait: Option<Duration>,
}

/// Connects; `wait` counts from now.
pub(crate) async fn connect(broker: &str, wait: Option<Duration>) -> Result<Connected, Failure> {
    let begun = Instant::now();
    let connecting = Client::connect(broker);
    let client = match wait {
        None => connecting.await?,
        Some(wait) => match timeout(wait, connecting).await {
            Ok(client) => client?,
            Err(_) => {
                return Err(Failure::new(
                    3,
                    "NO_BROKER",
                    format!("no broker at {broker} in the time to wait"),
                ));
            }
        },
    };
    Ok(Connected { client, begun, wait })
}

impl Connected {
    /// How long may still be waited, if there is a limit.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.wait.map(|wait| wait.saturating_sub(self.begun.elapsed()))
    }
}
