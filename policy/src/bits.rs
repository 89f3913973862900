//! Sets of small numbers.

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
        let (index, bit) = split(number);
        if let Some(word) = self.0.get_mut(index) {
            *word |= bit;
        }
    }

    /// Takes a number out.
    pub(crate) fn remove(&mut self, number: usize) {
        let (index, bit) = split(number);
        if let Some(word) = self.0.get_mut(index) {
            *word &= !bit;
        }
    }

    pub(crate) fn contains(&self, number: usize) -> bool {
        let (index, bit) = split(number);
        self.0.get(index).is_some_and(|word| word & bit != 0)
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

    /// Goes through the numbers, least first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0
            .iter()
            .enumerate()
            .flat_map(|(index, word)| numbers(index, *word))
    }
}

/// A set that keeps only the words which are not empty: most bots have few of many rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sparse(Vec<(usize, u64)>);

impl Sparse {
    /// Adds a number; numbers come in order.
    pub(crate) fn push(&mut self, number: usize) {
        let (index, bit) = split(number);
        match self.0.last_mut() {
            Some((last, word)) if *last == index => *word |= bit,
            _ => self.0.push((index, bit)),
        }
    }

    /// Gives the numbers from `64 * index` on as the bits of one word.
    fn word(&self, index: usize) -> u64 {
        // Where no word is left out, a word stands at its index.
        match self.0.get(index) {
            Some((found, word)) if *found == index => *word,
            _ => {
                let found = self.0.binary_search_by_key(&index, |(index, _)| *index);
                found.ok().and_then(|at| self.0.get(at)).map_or(0, |(_, word)| *word)
            }
        }
    }

    /// Goes through the numbers that are in both sets, least first.
    pub(crate) fn both<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = usize> {
        let (few, many) = if self.0.len() <= other.0.len() {
            (self, other)
        } else {
            (other, self)
        };
        few.0
            .iter()
            .flat_map(|(index, word)| numbers(*index, word & many.word(*index)))
    }

    /// Goes through the numbers that are in all three sets, least first.
    pub(crate) fn all<'a>(&'a self, second: &'a Self, third: &'a Self) -> impl Iterator<Item = usize> {
        let mut sets = [self, second, third];
        sets.sort_by_key(|set| set.0.len());
        let [few, more, most] = sets;
        few.0.iter().flat_map(|(index, word)| {
            let word = word & more.word(*index);
            let word = if word == 0 { 0 } else { word & most.word(*index) };
            numbers(*index, word)
        })
    }

    /// Goes through all numbers, least first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().flat_map(|(index, word)| numbers(*index, *word))
    }
}

/// Goes through the numbers that one word stands for, least first.
fn numbers(index: usize, mut word: u64) -> impl Iterator<Item = usize> {
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
fn split(number: usize) -> (usize, u64) {
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
        assert!(left.intersects(&right) && !left.intersects(&set(130, &[2, 65])));
        let mut all = left;
        all.extend(&right);
        assert_eq!(all.iter().collect::<Vec<_>>(), [1, 2, 64, 129]);
    }

    fn sparse(numbers: &[usize]) -> Sparse {
        let mut sparse = Sparse::default();
        for number in numbers {
            sparse.push(*number);
        }
        sparse
    }

    #[test]
    fn a_sparse_set_keeps_words_that_are_not_empty() {
        let few = sparse(&[0, 1, 63, 64, 640, 641]);
        assert_eq!(few.0, [(0, 0b11 | 1 << 63), (1, 1), (10, 0b11)]);
        assert_eq!(few.iter().collect::<Vec<_>>(), [0, 1, 63, 64, 640, 641]);
        assert_eq!(
            [few.word(0), few.word(1), few.word(2), few.word(10), few.word(11)],
            [0b11 | 1 << 63, 1, 0, 0b11, 0]
        );
    }

    #[test]
    fn sparse_sets_meet() {
        let (few, many) = (sparse(&[3, 640]), sparse(&(0..700).collect::<Vec<_>>()));
        let odd = sparse(&(0..700).filter(|number| number % 2 == 1).collect::<Vec<_>>());
        assert_eq!(few.both(&many).collect::<Vec<_>>(), [3, 640]);
        assert_eq!(many.both(&few).collect::<Vec<_>>(), [3, 640]);
        for sets in [[&few, &many, &odd], [&odd, &few, &many], [&many, &odd, &few]] {
            let [one, two, three] = sets;
            assert_eq!(one.all(two, three).collect::<Vec<_>>(), [3]);
        }
        assert_eq!(few.all(&many, &Sparse::default()).count(), 0);
        assert_eq!(
            sparse(&[5, 70])
                .all(&sparse(&[70, 700]), &sparse(&[5, 70, 700]))
                .collect::<Vec<_>>(),
            [70]
        );
    }
}
