//! `asynq doctor`: looks at everything between here and a task that runs, in the order in which it is needed.

mod certificate;
mod cluster;
mod own;
mod reach;
mod verdict;

use asynq_client::{Client, Credentials, connect::Connector};
use tokio::time::timeout;

use self::verdict::{Report, Verdict};
use crate::{cli::Format, connect::Broker, failure::Failure, limits::DOCTOR_ANSWER};

/// Check everything between this machine and a task that runs.
///
/// Says of each what it found: ok, warn or FAIL, and then what to do. Changes
/// nothing. Exits with 1 if anything failed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How to print; json prints {"ok":…,"checks":[{"check","verdict","found","advice"}]}.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

const EXAMPLES: &str = "\
Examples:
  asynq doctor
  asynq doctor --broker https://broker:7740 --ca ca.pem --token @token
  asynq doctor -o json | jq -r '.checks[] | select(.verdict == \"fail\") | .advice'";

/// The checks from here to the broker, in order; without one the next makes no sense.
const WAY: [&str; 5] = ["address", "name", "connection", "tls", "session"];
/// The checks of the broker and of who is connected to it.
const CLUSTER: [&str; 6] = ["round trip", "version", "clock", "workers", "tasks", "queues"];

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let mut report = Report::new(self.output);
        let client = way(broker, &mut report).await?;
        match client {
            Some(client) => cluster(&client, &mut report).await?,
            None => report.skip(&CLUSTER)?,
        }
        report.add("open files", own::open_files(own::limit()))?;
        report.end()
    }
}

/// From here to the broker.
async fn way(broker: &Broker, report: &mut Report) -> Result<Option<Client>, Failure> {
    let (verdict, endpoint) = reach::address(broker.url(), broker.origin());
    report.add(WAY[0], verdict)?;
    let Some(endpoint) = endpoint else {
        return report.skip(&WAY[1..]).map(|()| None);
    };
    let (verdict, addresses) = reach::name(&endpoint).await;
    report.add(WAY[1], verdict)?;
    let Some(addresses) = addresses else {
        return report.skip(&WAY[2..]).map(|()| None);
    };
    let (verdict, connects) = reach::connection(&addresses).await;
    report.add(WAY[2], verdict)?;
    if !connects {
        return report.skip(&WAY[3..]).map(|()| None);
    }
    let credentials: Credentials = broker.credentials();
    let with_token = credentials.token.is_some();
    let (verdict, connector) = reach::tls(endpoint, &credentials).await;
    report.add(WAY[3], verdict)?;
    let Some(connector) = connector else {
        return report.skip(&WAY[4..]).map(|()| None);
    };
    let (verdict, client) = session(connector, with_token).await;
    report.add(WAY[4], verdict)?;
    Ok(client)
}

async fn session(connector: Connector, with_token: bool) -> (Verdict, Option<Client>) {
    match timeout(DOCTOR_ANSWER, Client::with_connector(connector)).await {
        Ok(Ok(client)) => (reach::let_in(with_token), Some(client)),
        Ok(Err(error)) => (reach::kept_out(&error), None),
        Err(_) => (reach::no_welcome(), None),
    }
}

/// The broker, and who is connected to it.
async fn cluster(client: &Client, report: &mut Report) -> Result<(), Failure> {
    let took = cluster::measure(client).await;
    report.add(CLUSTER[0], cluster::round_trip(took))?;
    report.add(CLUSTER[1], cluster::version(&client.broker_version()))?;
    report.add(
        CLUSTER[2],
        cluster::clock(client.broker_clock(), own::now(), client.broker_doubts_clock()),
    )?;
    let workers = cluster::answer(client.workers()).await;
    report.add(CLUSTER[3], cluster::workers(workers.as_deref()))?;
    let ready = cluster::answer(cluster::ready(client)).await;
    report.add(CLUSTER[4], cluster::tasks(ready.as_ref(), workers.as_deref()))?;
    let queues = cluster::answer(client.queues()).await;
    report.add(CLUSTER[5], cluster::queues(queues.as_deref()))
}
