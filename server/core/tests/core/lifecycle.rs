//! The lifecycle's table.

use asynq_core::StateName;
use asynq_core::lifecycle::{Trigger, next};

#[test]
fn nothing_leads_out_of_a_terminal_state() {
    for state in StateName::ALL.into_iter().filter(|state| state.is_terminal()) {
        assert!(
            Trigger::ALL.into_iter().all(|trigger| next(state, trigger).is_none()),
            "{state:?}"
        );
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
        assert_eq!(left, !state.is_terminal(), "{state:?}");
    }
}
