//! How programs are ended, and that nothing of them is left.

use std::time::{Duration, Instant};

use asynq_proto::v1::emit_frame::Frame;
use asynq_proto::v1::{Assignment, StopCause};
use rustix::process::{Signal, kill_process};

use super::{Daemon, dead, ended, gone, pid_of, read, shell};
use crate::broker::{assignment, token, until};

/// Says its number and that of a child, and waits.
const PAIR: &str = "sleep 3600 & echo $! >child; echo $$ >parent; wait";
/// The same, but does not end when it is asked to.
const STUBBORN: &str = "trap '' TERM; sleep 3600 & echo $! >child; echo $$ >parent; while :; do wait; done";

#[tokio::test]
async fn a_stopped_program_is_gone_with_its_group_before_that_is_said() {
    let tasks = [
        shell("plain", "", PAIR),
        shell(
            "lines",
            "stdout = \"lines\"",
            "echo $$ >parent; while :; do echo x; done",
        ),
    ];
    let mut daemon = Daemon::start(&tasks.concat()).await;
    let mut longest = Duration::ZERO;
    for n in 1..=10 {
        let streams = n % 2 == 0;
        let emit = if streams {
            daemon.link.assign(read(n, "lines", "null", 100)).await;
            let mut emit = daemon.broker.emit().await;
            assert!(matches!(emit.next().await, Some(Frame::Items(_))));
            Some(emit)
        } else {
            daemon.link.assign(assignment(n, "plain", "null")).await;
            None
        };
        let parent = daemon.pid("parent").await;
        assert!(!dead(parent));
        let asked = Instant::now();
        daemon.link.stop(n, StopCause::Cancelled).await;
        assert_eq!(daemon.over(n).await.ended, [token(n)]);
        assert!(gone(parent), "it was said before it was so");
        longest = longest.max(asked.elapsed());
        drop(emit);
        if !streams {
            let child = daemon.pid("child").await;
            until(|| dead(child)).await; // its parent is dead: init reaps it
        }
        std::fs::remove_file(daemon.path("parent")).unwrap();
    }
    println!("from the stop to the worker's word that the program is gone: at most {longest:?} in 10");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}

#[tokio::test]
async fn one_that_does_not_listen_is_killed() {
    let mut daemon = Daemon::start(&shell("stubborn", "", STUBBORN)).await;
    daemon.link.assign(assignment(1, "stubborn", "null")).await;
    let (parent, child) = (daemon.pid("parent").await, daemon.pid("child").await);
    let asked = Instant::now();
    daemon.link.stop(1, StopCause::Timeout).await;
    assert_eq!(daemon.over(1).await.ended, [token(1)]);
    assert!(
        asked.elapsed() >= Duration::from_secs(5),
        "it had no time to end by itself"
    );
    assert!(gone(parent));
    until(|| dead(child)).await;
}

/// Somebody else may run the task by now: no time to say goodbye.
#[tokio::test]
async fn one_whose_lease_is_lost_is_killed_at_once() {
    let daemon = Daemon::start(&shell("stubborn", "", STUBBORN)).await;
    daemon.link.assign(assignment(1, "stubborn", "null")).await;
    let (parent, child) = (daemon.pid("parent").await, daemon.pid("child").await);
    let asked = Instant::now();
    daemon.link.stop(1, StopCause::Stale).await;
    until(|| gone(parent) && dead(child)).await;
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_timeout_of_the_brokers_is_kept_when_the_broker_says_nothing() {
    let mut daemon = Daemon::start(&shell("hangs", "timeout = \"1h\"", "sleep 3600")).await;
    let assignment = Assignment {
        timeout_ms: 200,
        ..assignment(1, "hangs", "null")
    };
    daemon.link.assign(assignment).await;
    let said = daemon.over(1).await;
    assert_eq!(said.failures[0].failure.as_ref().unwrap().kind, "timeout");
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it() {
    let tasks = [
        shell("leaves", "", "sleep 3600 & echo $! >child; echo 1"),
        // In a group of its own: out of reach, but it holds up nobody.
        shell(
            "escapes",
            "",
            "setsid sh -c 'echo $$ >escaped; exec sleep 3600' & while ! [ -s escaped ]; do :; done; echo 2",
        ),
    ];
    let mut daemon = Daemon::start(&tasks.concat()).await;
    assert_eq!(daemon.result(1, "leaves", "null").await, b"1");
    let child = daemon.pid("child").await;
    until(|| dead(child)).await;
    assert_eq!(daemon.result(2, "escapes", "null").await, b"2");
    let escaped = daemon.pid("escaped").await;
    assert!(!dead(escaped));
    kill_process(escaped, Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_drain_past_its_limit_asks_first_and_gives_back() {
    let polite = "trap 'echo asked >asked; exit 0' TERM; echo $$ >parent; while :; do sleep 0.05; done";
    let mut daemon = Daemon::start(&shell("polite", "", polite)).await;
    daemon.link.assign(assignment(1, "polite", "null")).await;
    let parent = daemon.pid("parent").await;
    daemon.signal(Signal::TERM);
    assert!(daemon.link.next().await.draining);
    assert!(!dead(parent));
    assert_eq!(daemon.over(1).await.released, [token(1)]);
    assert!(gone(parent) && daemon.path("asked").exists());
    daemon.link.closed().await;
    let Daemon { link, child, .. } = daemon;
    drop(link);
    assert_eq!(ended(child).await, Some(0));
}

#[tokio::test]
async fn no_program_outlives_a_daemon_however_it_ends() {
    for kill in [true, false] {
        let mut daemon = Daemon::start(&shell("stubborn", "", STUBBORN)).await;
        daemon.link.assign(assignment(1, "stubborn", "null")).await;
        let (parent, child) = (daemon.pid("parent").await, daemon.pid("child").await);
        if kill {
            daemon.signal(Signal::KILL);
        } else {
            daemon.signal(Signal::TERM);
            assert!(daemon.link.next().await.draining);
            daemon.signal(Signal::TERM); // exits at once
        }
        let Daemon { child: process, .. } = daemon;
        assert_ne!(ended(process).await, Some(0));
        until(|| dead(parent) && dead(child)).await;
    }
}

fn guards(daemon: &Daemon) -> Vec<u32> {
    let children = daemon.children().into_iter();
    children
        .filter(|(_, command)| command == "asynq-worker-guard\0")
        .map(|(pid, _)| pid)
        .collect()
}

#[tokio::test]
async fn a_guard_that_is_killed_is_replaced_and_one_that_is_asked_stays() {
    let mut daemon = Daemon::start(&[shell("waits", "", PAIR), shell("quick", "", "echo 1")].concat()).await;
    daemon.link.assign(assignment(1, "waits", "null")).await;
    let (parent, child) = (daemon.pid("parent").await, daemon.pid("child").await);
    let [guard] = guards(&daemon)[..] else {
        panic!("one guard")
    };
    kill_process(pid_of(guard), Signal::TERM).unwrap();
    kill_process(pid_of(guard), Signal::INT).unwrap();
    assert_eq!(daemon.result(2, "quick", "null").await, b"1");
    assert_eq!(guards(&daemon), [guard]);
    kill_process(pid_of(guard), Signal::KILL).unwrap();
    until(|| dead(pid_of(guard))).await;
    assert_eq!(daemon.result(3, "quick", "null").await, b"1");
    let [second] = guards(&daemon)[..] else {
        panic!("one guard")
    };
    assert!(second != guard && gone(pid_of(guard)));
    // It has learnt of the program that was there before it.
    daemon.signal(Signal::KILL);
    until(|| dead(parent) && dead(child) && dead(pid_of(second))).await;
}
