//! "Did you mean": the nearest of the words that would have been right.

/// Words longer than this are not compared: nobody mistypes so much.
const WORD_CHARS_MAX: usize = 128;
/// Of more candidates only the first are compared.
const CANDIDATES_MAX: usize = 10_000;

/// Finds the candidate with the fewest edits, if those are at most a third of the word.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(WORD_CHARS_MAX + 1).collect();
    if word.len() > WORD_CHARS_MAX {
        return None;
    }
    let most = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= most)
        .map(|candidate| (edits(&word, candidate), candidate))
        .filter(|(edits, _)| *edits <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Makes the help text for an unknown word.
pub(crate) fn help<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).map(|found| format!("did you mean `{found}`?"))
}

/// Counts insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
fn edits(left: &[char], right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    let mut previous = None;
    for (row, &a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, &b) in right.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&last, column) + usize::from(a != b))
                .min(at(&last, column + 1) + 1)
                .min(at(&current, column) + 1);
            let before = column.checked_sub(1).and_then(|index| right.get(index)).copied();
            if previous == Some(b) && before == Some(a) {
                best = best.min(at(&before_last, column - 1) + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
        previous = Some(a);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(left: &str, right: &str) -> usize {
        edits(&left.chars().collect::<Vec<_>>(), right)
    }

    #[test]
    fn edits_are_counted() {
        for (left, right, wanted) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("owner", "owner", 0),
            ("ownr", "owner", 1),
            ("owwner", "owner", 1),
            ("ownar", "owner", 1),
            ("onwer", "owner", 1),
            ("form", "from", 1),
            ("attset", "attest", 1),
            ("abcd", "badc", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(left, right), wanted, "{left} {right}");
        }
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        assert_eq!(nearest("stagin", ["prod", "staging", "stage"]), Some("staging"));
        assert_eq!(nearest("form", ["from", "to"]), Some("from"));
        assert_eq!(nearest("xyz", ["abc", "abd"]), None);
        assert_eq!(nearest("ab", ["xb", "xx"]), Some("xb"), "one edit is always forgiven");
        assert_eq!(nearest("abcdef", ["abcdxx"]), Some("abcdxx"), "two of six are a third");
        assert_eq!(nearest("abcde", ["abcxx"]), None, "two of five are more");
    }

    #[test]
    fn of_equally_near_words_the_least_is_suggested() {
        assert_eq!(nearest("prod/b", ["prod/c", "prod/a"]), Some("prod/a"));
    }

    #[test]
    fn very_long_words_are_not_compared() {
        let long = "a".repeat(WORD_CHARS_MAX);
        assert_eq!(nearest(&long, [long.as_str()]), Some(long.as_str()));
        let longer = "a".repeat(WORD_CHARS_MAX + 1);
        assert_eq!(nearest(&longer, [longer.as_str()]), None);
    }

    #[test]
    fn help_names_the_word() {
        assert_eq!(help("allw", ["allow"]).unwrap(), "did you mean `allow`?");
    }
}
