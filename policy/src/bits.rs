//! A set of small numbers.

const WORD_BITS: usize = u64::BITS as usize;

/// A set of numbers below a bound that is fixed when it is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bits(Box<[u64]>);

impl Bits {
    /// Makes the empty set of numbers below `bound`.
    pub(crate) fn empty(bound: usize) -> Self {
        Self(vec![0; bound.div_ceil(WORD_BITS)].into_boxed_slice())
    }

    /// Adds a number; one that is not below the bound is left out.
    pub(crate) fn insert(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / WORD_BITS) {
            *word |= 1 << (number % WORD_BITS);
        }
    }

    pub(crate) fn contains(&self, number: usize) -> bool {
        self.word(number / WORD_BITS) & (1 << (number % WORD_BITS)) != 0
    }

    /// Adds all numbers of a set with the same bound.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// Says whether two sets share a number.
    pub(crate) fn intersects(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(left, right)| left & right != 0)
    }

    /// Gives the numbers of this word, as bits: those from `64 * word`.
    pub(crate) fn word(&self, word: usize) -> u64 {
        self.0.get(word).copied().unwrap_or(0)
    }

    /// Goes through the numbers, least first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0
            .iter()
            .enumerate()
            .flat_map(|(index, word)| numbers(index, *word))
    }

    /// Goes through the numbers that are in both sets, least first.
    pub(crate) fn both<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = usize> {
        self.0
            .iter()
            .zip(&other.0)
            .enumerate()
            .flat_map(|(index, (left, right))| numbers(index, left & right))
    }
}

/// Goes through the numbers that one word stands for, least first.
pub(crate) fn numbers(index: usize, mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let bit = word.trailing_zeros() as usize;
        word &= word - 1;
        Some(index * WORD_BITS + bit)
    })
}

/// Splits a number into its word and its bit.
pub(crate) fn split(number: usize) -> (usize, u64) {
    (number / WORD_BITS, 1 << (number % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(bound: usize, numbers: &[usize]) -> Bits {
        let mut bits = Bits::empty(bound);
        for number in numbers {
            bits.insert(*number);
        }
        bits
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let bits = set(130, &[0, 63, 64, 129]);
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert!(bits.contains(64) && !bits.contains(65) && !bits.contains(1_000));
        assert_eq!((bits.word(0), bits.word(1), bits.word(9)), (1 | 1 << 63, 1, 0));
    }

    #[test]
    fn a_number_beyond_the_bound_is_left_out() {
        assert_eq!(set(64, &[64]).iter().count(), 0);
        assert_eq!(set(64, &[63]).iter().count(), 1);
        assert_eq!(Bits::empty(0), Bits::default());
    }

    #[test]
    fn sets_meet_and_join() {
        let (left, right) = (set(130, &[1, 64, 129]), set(130, &[2, 64, 129]));
        assert_eq!(left.both(&right).collect::<Vec<_>>(), [64, 129]);
        assert!(left.intersects(&right) && !left.intersects(&set(130, &[2, 65])));
        let mut all = left;
        all.extend(&right);
        assert_eq!(all.iter().collect::<Vec<_>>(), [1, 2, 64, 129]);
    }

    #[test]
    fn a_number_splits_into_word_and_bit() {
        assert_eq!((split(0), split(63), split(64)), ((0, 1), (0, 1 << 63), (1, 1)));
    }
}
