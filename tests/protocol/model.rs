//! Which steps are possible when: the model that the checker walks.

use stateright::{Model, Property};

use crate::faults::Protocol;
use crate::kafka::Kafka;
use crate::log::Offset;
use crate::properties;
use crate::state::{Call, InFlight, Member, State};
use crate::store::Database;
use crate::writer::{Phase, Writer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Decide(Member, usize),
    Execute(InFlight),
    Publish(Member),
    MarkAndAcknowledge(Member),
    AskBroker(Member),
    /// The broker notices a crash, or (a disturbance) moves the partition for no reason.
    Assign(Member),
    /// To a standby that no longer follows: what was not replicated is lost.
    FailOver,
    // Disturbances, each possible at any time and limited only in their sum:
    /// A time-out, or an answer that was lost: the same call is sent again. The first may still arrive.
    GiveUp(Member),
    /// Deadlock, serialization failure: nothing is written and the batch is decided again, in any size.
    Abort(InFlight),
    Crash(Member),
    Deposit,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Take(Step),
    /// A disturbance: the step changes the database, and from just before it on the standby does not follow.
    TakeUnreplicated(Step),
}

/// The protocol with two members, and up to so many disturbances of any kinds in any order.
#[derive(Clone, Copy, Debug)]
pub struct Partition {
    pub protocol: Protocol,
    pub disturbances: u8,
    /// Nobody crashes, every call is answered: for a fault that needs many of the other disturbances.
    pub calm: bool,
    /// The log is so many commands long.
    pub commands: Offset,
}

impl Partition {
    fn steps_of(self, member: Member, state: &State, steps: &mut Vec<Step>) {
        let writer = &state.writers[member];
        match writer.phase {
            Phase::Working => {
                let most = state.end.saturating_sub(writer.cursor).min(2);
                steps.extend((1..=most).map(|count| Step::Decide(member, count)));
            }
            Phase::Fenced => steps.push(Step::AskBroker(member)),
            Phase::Down | Phase::Idle | Phase::Claiming | Phase::Settling => {}
        }
        if !writer.debts.is_empty() {
            steps.push(Step::Publish(member));
        }
        if writer.unmarked.is_some() {
            steps.push(Step::MarkAndAcknowledge(member));
        }
        let owner_is_down = state.writers[state.kafka.owner].phase == Phase::Down;
        let moved = state.kafka.owner != member && state.disturbances_left > 0;
        if owner_is_down || moved {
            steps.push(Step::Assign(member));
        }
        if state.disturbances_left > 0 && !self.calm {
            if matches!(writer.phase, Phase::Claiming | Phase::Settling) {
                steps.push(Step::GiveUp(member));
            }
            if writer.phase != Phase::Down {
                steps.push(Step::Crash(member));
            }
        }
    }

    fn steps_of_calls(self, state: &State, steps: &mut Vec<Step>) {
        let mut calls = state.in_flight.clone();
        calls.dedup();
        for flight in calls {
            if flight.awaited && !self.calm && state.disturbances_left > 0 && matches!(flight.call, Call::Settle(_)) {
                steps.push(Step::Abort(flight.clone()));
            }
            steps.push(Step::Execute(flight));
        }
    }

    /// None where the step is not possible, or changes nothing.
    fn take(self, step: Step, state: &mut State) -> Option<()> {
        match step {
            Step::Decide(member, count) => state.decide(member, count, self.protocol),
            Step::Execute(flight) => return state.execute(flight, self.protocol),
            Step::Publish(member) => state.publish(member),
            Step::MarkAndAcknowledge(member) => state.mark_and_acknowledge(member, self.protocol),
            Step::AskBroker(member) => state.ask_broker(member, self.protocol),
            Step::Assign(member) => {
                if state.writers[state.kafka.owner].phase != Phase::Down {
                    state.disturb()?;
                }
                state.kafka.owner = member;
                state.claim(member, self.protocol);
            }
            Step::FailOver => state.fail_over(),
            Step::GiveUp(member) => {
                state.disturb()?;
                state.give_up(member, self.protocol);
            }
            Step::Abort(flight) => {
                state.disturb()?;
                state.remove(&flight);
                state.writers[flight.sender].phase = Phase::Working;
            }
            Step::Crash(member) => {
                state.disturb()?;
                state.forget_answers(member);
                state.writers[member].crash();
            }
            Step::Deposit => {
                state.disturb()?;
                state.db.entity = state.db.entity.deposit();
                state.deposited = true;
            }
        }
        Some(())
    }
}

impl Model for Partition {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            end: self.commands,
            db: Database::new(),
            standby: None,
            kafka: Kafka { owner: 0, committed: 0, outcomes: Vec::new() },
            writers: [Writer::default(), Writer::default()],
            in_flight: Vec::new(),
            disturbances_left: self.disturbances,
            deposited: false,
            failed_over: false,
            batch_lost: false,
        };
        state.claim(0, self.protocol);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if properties::is_over(state) {
            return;
        }
        let mut steps = Vec::new();
        self.steps_of_calls(state, &mut steps);
        for member in 0..state.writers.len() {
            self.steps_of(member, state, &mut steps);
        }
        if state.standby.is_some() {
            steps.push(Step::FailOver);
        }
        if state.disturbances_left > 0 && !state.deposited {
            steps.push(Step::Deposit);
        }
        if state.disturbances_left > 0 && state.standby.is_none() && !state.failed_over {
            actions.extend(steps.iter().cloned().map(Action::TakeUnreplicated));
        }
        actions.extend(steps.into_iter().map(Action::Take));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Take(step) => self.take(step, &mut state)?,
            Action::TakeUnreplicated(step) => {
                state.disturb()?;
                self.take(step, &mut state)?;
                if state.db == last.db {
                    return None;
                }
                state.standby = Some(last.db.clone());
            }
        }
        state.forget_dead_calls(self.protocol);
        state.in_flight.sort_unstable();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
