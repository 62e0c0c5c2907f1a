//! The lifecycle's table.

use std::collections::BTreeSet;

use asynq_core::StateName;
use asynq_core::lifecycle::{Trigger, next};

#[test]
fn nothing_but_a_retry_of_a_dead_task_leads_out_of_a_terminal_state() {
    for state in StateName::ALL.into_iter().filter(|state| state.is_terminal()) {
        let out = Trigger::ALL
            .into_iter()
            .filter(|&trigger| next(state, trigger).is_some());
        let allowed = (state == StateName::Dead).then_some(Trigger::Revived);
        assert!(out.eq(allowed), "{state:?}");
    }
}

#[test]
fn every_state_can_be_reached_and_left() {
    for state in StateName::ALL {
        let first = matches!(state, StateName::Scheduled | StateName::Ready);
        let reached = StateName::ALL
            .iter()
            .any(|&from| Trigger::ALL.iter().any(|&t| next(from, t) == Some(state)));
        let left = Trigger::ALL.iter().any(|&t| next(state, t).is_some());
        assert!(first || reached, "{state:?} cannot be reached");
        let final_one = state.is_terminal() && state != StateName::Dead;
        assert_eq!(left, !final_one, "{state:?}");
    }
}

/// docs/lifecycle.md says which states lead to which: neither more nor less
/// than the table does.
#[test]
fn the_page_and_the_table_agree() {
    let page = include_str!("../../../../docs/lifecycle.md");
    let named = |word: &str| StateName::ALL.into_iter().find(|state| state.as_str() == word);
    let mut told = BTreeSet::new();
    for row in page
        .lines()
        .filter(|line| line.starts_with("| ") && line.matches('|').count() == 5)
    {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let to = cells[3].split([',', ' ', '(']).next().and_then(named);
        for from in cells[1].split(", ").filter_map(named) {
            let to = to.unwrap_or_else(|| panic!("where does this row lead? {row}"));
            told.insert((from, to));
        }
    }
    let pairs = StateName::ALL
        .into_iter()
        .flat_map(|from| Trigger::ALL.map(|trigger| (from, trigger)));
    let table: BTreeSet<_> = pairs
        .filter_map(|(from, t)| next(from, t).map(|to| (from, to)))
        .collect();
    assert!(told.len() > 10, "the page has no table: {told:?}");
    assert_eq!(told, table, "docs/lifecycle.md and lifecycle.rs differ");
}
