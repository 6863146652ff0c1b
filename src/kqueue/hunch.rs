//! Whether a call that may sleep is likely to find something at once.
//!
//! A sleep costs more than a look, also one that ends before it has begun: the kqueue's lock
//! is let go and taken again, and cancellation is switched on and off. So where waits nearly
//! always find something there already, a call looks first and sleeps only after that. A
//! look in vain is a system call for nothing, so each one doubles the number of sleeps until
//! the next, which some half dozen looks that find something make up for: a program that
//! does sleep pays for one look in hundreds.

/// What a kqueue has learnt of its waits.
pub(super) struct Hunch {
    /// So many waits go to sleep without a look.
    sleeps: u32,
    /// As many as the next look in vain brings on.
    penalty: u32,
}

impl Hunch {
    const FEWEST: u32 = 8;
    const MOST: u32 = 1024;

    pub(super) const fn new() -> Hunch {
        Hunch { sleeps: Self::FEWEST, penalty: 2 * Self::FEWEST }
    }

    /// Whether a call that would sleep is to look first.
    pub(super) fn looks(&mut self) -> bool {
        let looks = self.sleeps == 0;
        self.sleeps = self.sleeps.saturating_sub(1);
        looks
    }

    /// Whether that look `found` anything.
    pub(super) fn learn(&mut self, found: bool) {
        if found {
            self.penalty = (self.penalty - self.penalty / 8).max(Self::FEWEST);
        } else {
            self.sleeps = self.penalty;
            self.penalty = (self.penalty * 2).min(Self::MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `calls` look first, where `there` says of each look whether it finds
    /// something.
    fn looks(calls: u32, mut there: impl FnMut(u32) -> bool) -> u32 {
        let mut hunch = Hunch::new();
        let mut looks = 0;
        for call in 0..calls {
            if hunch.looks() {
                looks += 1;
                hunch.learn(there(call));
            }
        }
        looks
    }

    #[test]
    fn a_program_that_always_sleeps_hardly_ever_looks() {
        assert!(looks(100, |_| false) <= 3);
        assert!(looks(10_000, |_| false) <= 16);
    }

    #[test]
    fn a_program_that_never_sleeps_looks_nearly_always() {
        assert!(looks(1000, |_| true) >= 990);
    }

    #[test]
    fn one_that_sleeps_every_other_time_seldom_looks() {
        let all = looks(10_000, |call| call % 2 == 0);
        assert!(all < 100, "{all}");
    }

    #[test]
    fn a_program_that_changes_its_ways_is_followed() {
        assert!(looks(20_000, |call| call > 10_000) > 8_000);
    }
}
