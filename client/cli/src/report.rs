//! The end of a task, printed: the same for `call` and `task wait`.

use asynq_client::{Client, Error, Payload, TaskId};

use crate::{cli::Format, failure::Failure, json, output};

/// Prints the result, or with `-o json` the task, and turns a bad end into a failure.
pub(crate) async fn outcome(
    client: &Client,
    id: TaskId,
    format: Format,
    result: Result<Payload, Error>,
) -> Result<(), Failure> {
    match format {
        Format::Text => output::result(&result?),
        Format::Json => {
            let ended = matches!(
                result,
                Ok(_)
                    | Err(Error::Dead { .. } | Error::Cancelled { .. } | Error::Expired { .. } | Error::Timeout { .. })
            );
            if ended {
                output::json(&json::Task::from(client.show(id).await?))?;
            }
            result.map(drop).map_err(Failure::from)
        }
    }
}
