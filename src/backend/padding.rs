//! Features padded to what kernels work on at once.

/// So many equal parts, each padded to a multiple of a width.
pub(super) struct Padding {
    parts: usize,
    part: usize,
    padded: usize,
}

impl Padding {
    /// `count` numbers in `parts` parts, each padded to a multiple of `width`.
    pub fn new(count: usize, parts: usize, width: usize) -> Self {
        let part = count / parts;
        Padding { parts, part, padded: part.next_multiple_of(width) }
    }

    /// Numbers with padding.
    pub fn len(&self) -> usize {
        self.parts * self.padded
    }

    /// Where a number stands with padding.
    pub fn place(&self, index: usize) -> usize {
        index / self.part * self.padded + index % self.part
    }

    /// Where a padded index stood before, if it did.
    pub fn original(&self, index: usize) -> Option<usize> {
        let (part, within) = (index / self.padded, index % self.padded);
        (within < self.part).then_some(part * self.part + within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lead_back() {
        let padding = Padding::new(3 * 20, 3, 16);
        assert_eq!(padding.len(), 96);
        assert!((0..60).all(|index| padding.original(padding.place(index)) == Some(index)));
        assert_eq!((0..96).filter(|&index| padding.original(index).is_none()).count(), 36);
    }
}
