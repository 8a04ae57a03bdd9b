//! Steps at which something is due.

/// The multiples of one or more intervals, from 1 on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Due(Vec<u64>);

impl Due {
    /// At every multiple of one of these; an interval of 0 is one of 1.
    pub fn new(intervals: impl IntoIterator<Item = u64>) -> Self {
        Due(intervals.into_iter().map(|interval| interval.max(1)).collect())
    }

    /// Whether it is due at this step.
    pub fn at(&self, step: u64) -> bool {
        self.0.iter().any(|&interval| step.is_multiple_of(interval))
    }

    /// The first step after this one at which it is due; none without an interval.
    pub fn after(&self, step: u64) -> Option<u64> {
        self.0.iter().map(|interval| (step / interval + 1).saturating_mul(*interval)).min()
    }

    /// How far a walk from `step` to `goal` comes when it ends where it is due for the `most`-th time, 1 or more.
    pub fn limit(&self, step: u64, goal: u64, most: usize) -> u64 {
        let due = std::iter::successors(self.after(step), |&step| self.after(step));
        due.take_while(|&step| step < goal).nth(most - 1).unwrap_or(goal)
    }

    /// The intervals.
    pub fn intervals(&self) -> &[u64] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Due;

    #[test]
    fn due_steps_are_those_that_follow_each_other() {
        for (intervals, expected) in [
            (vec![6], vec![6, 12, 18]),
            (vec![9, 5], vec![5, 9, 10, 15, 18, 20]),
            (vec![4, 2], vec![2, 4, 6, 8, 10, 12, 14, 16, 18, 20]),
            (vec![], vec![]),
            (vec![u64::MAX], vec![]),
        ] {
            let due = Due::new(intervals);
            let steps = std::iter::successors(due.after(0), |&step| due.after(step));
            assert_eq!(steps.take_while(|&step| step <= 20).collect::<Vec<_>>(), expected);
            assert_eq!((1..=20).filter(|&step| due.at(step)).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_walk_ends_where_it_is_due_often_enough() {
        let due = Due::new([9, 5]);
        assert_eq!([1, 2, 3, 4, 5].map(|most| due.limit(5, 18, most)), [9, 10, 15, 18, 18]);
        assert_eq!(due.limit(5, 8, 1), 8);
        assert_eq!(Due::default().limit(3, 1000, 1), 1000);
    }
}
