//! The states of an assigned partition: every pair of state and event.

/// What an assigned partition is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Becoming the owner in Postgres.
    Claiming,
    /// A writer performs the eight steps.
    Running,
    /// Asking the broker whether this member still owns the partition.
    Confirming,
    /// Waiting for an operator.
    Halted,
    /// Nothing more: the partition is another member's, or the process ends.
    Ended,
}

/// What can happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The claim succeeded and the log is the cursor's.
    Claimed,
    /// Correctness cannot be proven; the halt is recorded.
    Halted,
    /// A dependency is away: try again.
    Unavailable,
    /// The claim is stale, or may be.
    Fenced,
    /// The broker confirms the membership.
    Confirmed,
    /// The row or the log changed: look again.
    Changed,
    /// The partition was revoked, or the process ends.
    Stopped,
}

/// What follows.
pub fn next(state: State, event: Event) -> State {
    match (state, event) {
        (State::Ended, _) | (_, Event::Stopped) => State::Ended,
        (State::Claiming, Event::Claimed) => State::Running,
        (State::Claiming | State::Running, Event::Halted) => State::Halted,
        (State::Claiming | State::Running, Event::Fenced) => State::Confirming,
        (State::Claiming | State::Running | State::Halted, Event::Changed | Event::Unavailable) => State::Claiming,
        (State::Confirming, Event::Confirmed) => State::Claiming,
        // the broker does not confirm (yet): a change of the row is seen by the claim after it
        (State::Confirming, Event::Changed | Event::Unavailable | Event::Fenced | Event::Halted) => State::Confirming,
        // late news of a claim that was given up: the state that asked is gone
        (State::Running | State::Confirming | State::Halted, Event::Claimed) => state,
        (State::Claiming | State::Running | State::Halted, Event::Confirmed) => state,
        (State::Halted, Event::Halted | Event::Fenced) => State::Halted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 6] =
        [Event::Claimed, Event::Halted, Event::Unavailable, Event::Fenced, Event::Confirmed, Event::Changed];

    #[test]
    fn a_stop_ends_every_state_for_good() {
        for state in [State::Claiming, State::Running, State::Confirming, State::Halted] {
            assert_eq!(next(state, Event::Stopped), State::Ended);
        }
        for event in EVENTS {
            assert_eq!(next(State::Ended, event), State::Ended);
        }
    }

    #[test]
    fn no_order_of_events_leaves_an_assigned_partition_without_a_way_to_run() {
        for state in [State::Claiming, State::Running, State::Confirming, State::Halted] {
            for event in EVENTS {
                let mut state = next(state, event);
                for healing in [Event::Confirmed, Event::Changed, Event::Confirmed, Event::Claimed] {
                    state = next(state, healing);
                }
                assert_eq!(state, State::Running, "after {event:?}");
            }
        }
    }

    #[test]
    fn who_is_fenced_claims_only_after_the_broker_has_confirmed() {
        let fenced = next(State::Running, Event::Fenced);
        for event in EVENTS.into_iter().filter(|event| *event != Event::Confirmed) {
            assert_eq!(next(fenced, event), State::Confirming);
        }
    }
}
