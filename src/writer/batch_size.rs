//! How many commands the next batch may have: halved when it collides with somebody, grown back
//! slowly, as TCP does with its window. Eight writers that update the same rows in opposite orders
//! would otherwise meet again and again, each time waiting for Postgres to find the deadlock.

/// Full batches that must be settled in a row, at most, before the size doubles. A count.
const PATIENCE_MAX: u32 = 256;

/// The size of batches, in commands.
#[derive(Debug)]
pub(crate) struct BatchSize {
    most: usize,
    now: usize,
    /// Full batches settled since the size last changed.
    calm: u32,
    /// Full batches that must be settled before it doubles.
    patience: u32,
}

impl BatchSize {
    /// Begins with `now` commands, at most `most`.
    pub fn new(now: usize, most: usize) -> Self {
        Self { most, now, calm: 0, patience: 1 }
    }

    /// Commands in the next batch, at most.
    pub fn commands_max(&self) -> usize {
        self.now
    }

    /// A batch of so many commands is durable.
    pub fn settled(&mut self, commands: usize) {
        if commands < self.now || self.now == self.most {
            return;
        }
        self.calm += 1;
        if self.calm >= self.patience {
            self.calm = 0;
            self.now = (self.now * 2).min(self.most);
            if self.now == self.most {
                self.patience = 1;
            }
        }
    }

    /// A batch of so many commands has collided: deadlock, serialization failure, time-out.
    pub fn collided(&mut self, commands: usize) {
        self.halve(commands);
        self.patience = (self.patience * 2).min(PATIENCE_MAX);
    }

    /// One of so many commands is to be found.
    pub fn halve(&mut self, commands: usize) {
        self.now = (commands / 2).max(1);
        self.calm = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_collided_once_is_back_after_a_few_batches() {
        let mut size = BatchSize::new(8, 8);
        size.collided(8);
        assert_eq!(size.commands_max(), 4);
        size.settled(4);
        assert_eq!(size.commands_max(), 4, "not at once");
        size.settled(4);
        assert_eq!(size.commands_max(), 8);
    }

    #[test]
    fn sizes_that_go_on_colliding_are_tried_more_and_more_rarely() {
        let mut size = BatchSize::new(64, 64);
        let mut collisions = 0;
        for _ in 0..10_000 {
            match size.commands_max() {
                1 => size.settled(1),
                commands => {
                    collisions += 1;
                    size.collided(commands);
                }
            }
        }
        assert!(collisions < 60, "{collisions} collisions in 10,000 batches");
    }

    #[test]
    fn a_batch_that_was_not_full_says_nothing_about_its_size() {
        let mut size = BatchSize::new(2, 8);
        size.settled(1);
        assert_eq!(size.commands_max(), 2);
    }
}
