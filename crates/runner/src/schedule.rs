//! Which stage may start next: a graph of stages, walked in topological order.

/// Where a stage stands in the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Some stage that it needs has not ended yet.
    Waiting,
    /// Everything it needs is there.
    Ready,
    /// It was handed out by [`Schedule::start_next`].
    Running,
    /// It is done.
    Done,
    /// It ended without what its dependents need.
    Stopped,
    /// Something that it needs stopped or is blocked.
    Blocked,
}

/// A graph of stages and where each of them stands. Stages are named by their place in the plan.
#[derive(Debug)]
pub(crate) struct Schedule {
    states: Vec<State>,
    needs: Vec<Vec<usize>>,
    dependents: Vec<Vec<usize>>,
}

impl Schedule {
    /// A schedule of stages; `needs[i]` are those that must be done before stage `i` starts.
    /// The graph has no circle, since a key is a hash over the keys of its inputs.
    pub(crate) fn new(needs: Vec<Vec<usize>>) -> Self {
        let mut dependents = vec![Vec::new(); needs.len()];
        for (stage, inputs) in needs.iter().enumerate() {
            for &input in inputs {
                dependents[input].push(stage);
            }
        }
        let states = needs.iter().map(|inputs| if inputs.is_empty() { State::Ready } else { State::Waiting }).collect();
        Self { states, needs, dependents }
    }

    /// Takes the first ready stage in the plan's order.
    pub(crate) fn start_next(&mut self) -> Option<usize> {
        let stage = self.states.iter().position(|&state| state == State::Ready)?;
        self.states[stage] = State::Running;
        Some(stage)
    }

    /// A stage is done: its dependents may become ready.
    pub(crate) fn done(&mut self, stage: usize) {
        self.states[stage] = State::Done;
        for &dependent in &self.dependents[stage] {
            let all_there = self.needs[dependent].iter().all(|&input| self.states[input] == State::Done);
            if self.states[dependent] == State::Waiting && all_there {
                self.states[dependent] = State::Ready;
            }
        }
    }

    /// A stage ended without a result for its dependents; returns those that are blocked by it, nearest first.
    pub(crate) fn stopped(&mut self, stage: usize) -> Vec<usize> {
        self.states[stage] = State::Stopped;
        let mut blocked = Vec::new();
        let mut front = vec![stage];
        while let Some(stage) = front.pop() {
            for &dependent in &self.dependents[stage] {
                if self.states[dependent] == State::Waiting {
                    self.states[dependent] = State::Blocked;
                    blocked.push(dependent);
                    front.push(dependent);
                }
            }
        }
        blocked
    }

    /// Stages that could run now if there were slots.
    pub(crate) fn ready(&self) -> usize {
        self.states.iter().filter(|&&state| state == State::Ready).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0 -> 1 -> 3, 0 -> 2 -> 3, 4 alone.
    fn diamond() -> Schedule {
        Schedule::new(vec![vec![], vec![0], vec![0], vec![1, 2], vec![]])
    }

    #[test]
    fn a_stage_starts_after_everything_it_needs() {
        let mut schedule = diamond();
        assert_eq!(schedule.start_next(), Some(0));
        assert_eq!(schedule.start_next(), Some(4));
        assert_eq!(schedule.start_next(), None);
        schedule.done(0);
        assert_eq!(schedule.ready(), 2);
        assert_eq!(schedule.start_next(), Some(1));
        assert_eq!(schedule.start_next(), Some(2));
        schedule.done(2);
        assert_eq!(schedule.start_next(), None);
        schedule.done(1);
        assert_eq!(schedule.start_next(), Some(3));
    }

    #[test]
    fn a_failure_blocks_its_dependents_once_and_nothing_else() {
        let mut schedule = diamond();
        schedule.start_next();
        schedule.done(0);
        assert_eq!(schedule.start_next(), Some(1));
        assert_eq!(schedule.stopped(1), [3]);
        assert_eq!(schedule.start_next(), Some(2));
        schedule.done(2);
        assert_eq!(schedule.start_next(), Some(4));
        assert_eq!(schedule.start_next(), None);
    }

    #[test]
    fn a_failure_at_the_root_blocks_the_whole_chain() {
        let mut schedule = diamond();
        schedule.start_next();
        let mut blocked = schedule.stopped(0);
        blocked.sort_unstable();
        assert_eq!(blocked, [1, 2, 3]);
    }
}
