//! A number of calls, so many in flight, timed each and together.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::{Figure, cpu};

/// How much to ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    calls: usize,
    in_flight: usize,
}

impl Load {
    pub(crate) fn many(calls: usize, in_flight: usize) -> Self {
        Self { calls, in_flight }
    }

    pub(crate) fn one_by_one(calls: usize) -> Self {
        Self { calls, in_flight: 1 }
    }

    /// Makes the calls: as many callers as there are to be in flight, each one
    /// call after the other.
    pub(crate) async fn run<F, C>(self, pids: &[u32], call: F) -> Figure
    where
        F: Fn() -> C + Clone + Send + 'static,
        C: Future<Output = ()> + Send,
    {
        let cpu = || {
            pids.iter()
                .copied()
                .chain([std::process::id()])
                .map(cpu::used)
                .sum::<Duration>()
        };
        let (cpu_before, begun) = (cpu(), Instant::now());
        let mut callers = JoinSet::new();
        for _ in 0..self.in_flight {
            let (call, calls) = (call.clone(), self.calls / self.in_flight);
            callers.spawn(async move {
                let mut took = Vec::with_capacity(calls);
                for _ in 0..calls {
                    let begun = Instant::now();
                    call().await;
                    took.push(begun.elapsed());
                }
                took
            });
        }
        let mut took: Vec<Duration> = callers.join_all().await.into_iter().flatten().collect();
        let (elapsed, cpu) = (begun.elapsed(), cpu() - cpu_before);
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        Figure {
            per_second: took.len() as f64 / elapsed.as_secs_f64(),
            cpu_us: cpu.as_secs_f64() * 1e6 / took.len() as f64,
            p50_us: at(0.5),
            p99_us: at(0.99),
        }
    }
}
