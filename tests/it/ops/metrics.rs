//! /metrics: what Prometheus reads, what is counted, and what the guide says of
//! each figure.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use asynq_tests::{Broker, Cluster, PATIENCE, eventually, get};

const GUIDE: &str = "../docs/guides/operating.md";

/// Families by name, with their type; and samples by name and labels.
#[derive(Debug, Default)]
struct Page {
    families: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

/// Reads the text format and is strict: HELP and TYPE before each family's
/// samples, no family or sample twice, counters named `_total`, histograms whole.
fn parse(text: &str) -> Result<Page, String> {
    let (mut page, mut helped) = (Page::default(), BTreeSet::new());
    let mut family = String::new();
    for line in text.lines() {
        let bad = |why: &str| Err(format!("{why}: {line}"));
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap_or((help, ""));
            if help.is_empty() || !helped.insert(name.to_owned()) {
                return bad("no help, or twice");
            }
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap_or((kind, ""));
            if !helped.contains(name) || page.families.insert(name.into(), kind.into()).is_some() {
                return bad("no help before, or twice");
            }
            if (kind == "counter") != name.ends_with("_total") {
                return bad("counters, and nothing else, end in _total");
            }
            family = name.to_owned();
        } else {
            let (sample, value) = line.rsplit_once(' ').ok_or_else(|| format!("no value: {line}"))?;
            let name = sample.split('{').next().unwrap_or_default();
            let kind = page.families.get(&family).map_or("", String::as_str);
            let part = name.strip_prefix(&family).unwrap_or("?");
            let fits = match kind {
                "histogram" => ["_bucket", "_sum", "_count"].contains(&part),
                "counter" | "gauge" => part.is_empty(),
                _ => false,
            };
            let named = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let labelled = sample.len() == name.len() || sample.ends_with("\"}");
            let value: f64 = value.parse().map_err(|_| format!("no number: {line}"))?;
            if !(fits && named && labelled) || page.samples.insert(sample.into(), value).is_some() {
                return bad("a sample of no family, of a wrong name, or twice");
            }
        }
    }
    for name in page
        .families
        .iter()
        .filter(|(_, kind)| *kind == "histogram")
        .map(|(name, _)| name)
    {
        let all = page.samples.get(&format!("{name}_bucket{{le=\"+Inf\"}}"));
        if all.is_none() || all != page.samples.get(&format!("{name}_count")) {
            return Err(format!("{name}: the last bucket is not the count"));
        }
    }
    Ok(page)
}

#[test]
fn what_prometheus_would_refuse_is_found() {
    let good = "# HELP a_total A.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n";
    assert_eq!(parse(good).unwrap().samples.len(), 1);
    for bad in [
        "a_total 1\n",
        "# TYPE a_total counter\na_total 1\n",
        "# HELP a A.\n# TYPE a counter\na 1\n",
        "# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n",
        "# HELP a A.\n# TYPE a gauge\nb 1\n",
        "# HELP a A.\n# TYPE a gauge\na one\n",
        "# HELP a A.\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 2\n",
        &good.repeat(2),
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

async fn page(broker: &Broker) -> Page {
    let (status, _, text) = get(broker.http(), "/metrics").await;
    assert_eq!(status, 200, "{text}");
    parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[tokio::test]
async fn what_happens_is_counted() {
    let (cluster, _worker) = Cluster::with_worker(2).await;
    cluster.ok(&["call", "echo", "1"]).await;
    cluster.ok(&["iterate", "count", r#"{"n":10,"bytes":5}"#]).await;
    let failed = cluster.run(&["call", "fail", "{}", "--retries", "1"]).await;
    assert_eq!(failed.code, Some(1));
    let unknown = cluster
        .run(&["task", "show", "00000000-0000-7000-8000-000000000000"])
        .await;
    assert_eq!(unknown.code, Some(6), "{}", unknown.err);
    cluster.ok(&["enqueue", "nobody", "{}", "--queue", "night"]).await;
    let id = cluster.ok(&["enqueue", "nobody", "{}"]).await;
    cluster.ok(&["task", "cancel", &id]).await;
    let page = page(&cluster.broker).await;
    for (sample, value) in [
        ("asynq_tasks_total{outcome=\"enqueued\"}", 5.0),
        ("asynq_tasks_total{outcome=\"succeeded\"}", 2.0),
        ("asynq_tasks_total{outcome=\"dead\"}", 1.0),
        ("asynq_tasks_total{outcome=\"cancelled\"}", 1.0),
        ("asynq_tasks_total{outcome=\"expired\"}", 0.0),
        ("asynq_dead_tasks_total{reason=\"error\"}", 1.0),
        ("asynq_runs_total", 4.0),
        ("asynq_run_setbacks_total{kind=\"failure\"}", 2.0),
        ("asynq_retries_total", 1.0),
        ("asynq_items_total", 10.0),
        ("asynq_task_wait_seconds_count", 3.0),
        ("asynq_task_run_seconds_count", 3.0),
        ("asynq_queue_tasks{queue=\"night\",state=\"ready\"}", 1.0),
        ("asynq_queue_tasks{queue=\"default\",state=\"ready\"}", 0.0),
        ("asynq_workers{state=\"active\"}", 1.0),
        ("asynq_slots", 2.0),
        ("asynq_slots_busy", 0.0),
        ("asynq_streams_open", 0.0),
        (
            "asynq_rpc_errors_total{code=\"NOT_FOUND\",reason=\"TASK_NOT_FOUND\"}",
            1.0,
        ),
    ] {
        assert_eq!(page.samples.get(sample), Some(&value), "{sample}");
    }
    for more_than_none in [
        "asynq_commit_seconds_count",
        "asynq_commit_seconds_sum",
        "asynq_loop_turn_seconds_count",
        "asynq_item_bytes_total",
        "asynq_store_bytes",
        "asynq_store_free_bytes",
        "asynq_queue_oldest_ready_seconds{queue=\"night\"}",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
    ] {
        assert!(page.samples[more_than_none] > 0.0, "{more_than_none}");
    }
}

#[tokio::test]
async fn sessions_come_and_go() {
    let mut cluster = Cluster::start().await;
    let client = cluster.client().await;
    let nobody = asynq_client::Task::<u32, u32>::new("nobody");
    client.enqueue(nobody, &1).await.unwrap();
    let samples = page(&cluster.broker).await.samples;
    assert_eq!(samples["asynq_caller_sessions"], 1.0);
    drop(client);
    let broker = &cluster.broker;
    eventually("the session to end", PATIENCE, || async move {
        (page(broker).await.samples["asynq_caller_sessions"] == 0.0).then_some(())
    })
    .await;
    cluster.broker.stop().await;
}

/// Rows of the guide's table: `| `name` | type | unit | … |`.
fn documented(guide: &str) -> BTreeMap<String, String> {
    let (_, table) = guide.split_once("\n## The metrics\n").expect("the guide has the table");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter_map(|row| row.split_once('`'));
    rows.map(|(name, rest)| {
        let kind = rest.split('|').nth(1).unwrap_or_default().trim();
        (name.split('{').next().unwrap_or_default().to_owned(), kind.to_owned())
    })
    .collect()
}

#[tokio::test]
async fn the_guide_lists_what_there_is() {
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(GUIDE)).unwrap();
    let cluster = Cluster::start().await;
    let families = page(&cluster.broker).await.families;
    assert!(families.len() > 20, "{families:?}");
    assert_eq!(documented(&guide), families, "the table of {GUIDE} beside /metrics");
}
