//! The bots of a mesh by number, and which of them a rule means.

use std::collections::BTreeMap;

use spiffe::id::BotName;

use crate::bits::Bits;
use crate::pattern::NamePattern;
use crate::rule::Subject;

/// The members of groups, by the groups' names.
pub(crate) type Groups = BTreeMap<Box<str>, Vec<NamePattern>>;

/// The bots of a mesh in the order of their names.
///
/// A rule speaks only of bots of the mesh: a bot that was removed from the file matches no pattern.
#[derive(Debug)]
pub(crate) struct Roster<'m> {
    names: Vec<&'m BotName>,
    groups: &'m Groups,
    /// What patterns with stars match: many rules share few patterns.
    known: BTreeMap<&'m str, Bits>,
}

impl<'m> Roster<'m> {
    /// `names` come in order.
    pub(crate) fn new(names: impl IntoIterator<Item = &'m BotName>, groups: &'m Groups) -> Self {
        Self {
            names: names.into_iter().collect(),
            groups,
            known: BTreeMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn name(&self, number: usize) -> Option<&'m BotName> {
        self.names.get(number).copied()
    }

    pub(crate) fn number(&self, name: &BotName) -> Option<usize> {
        self.names.binary_search(&name).ok()
    }

    /// Gives the bots that subjects mean.
    pub(crate) fn expand(&mut self, subjects: &'m [Subject]) -> Bits {
        let mut all = Bits::empty(self.len());
        for pattern in patterns(subjects, self.groups) {
            self.add(pattern, &mut all);
        }
        all
    }

    /// Adds the bots that one pattern matches.
    pub(crate) fn add(&mut self, pattern: &'m NamePattern, all: &mut Bits) {
        if let Some(literal) = pattern.literal() {
            if let Some(number) = self.number(literal) {
                all.insert(number);
            }
            return;
        }
        let names = &self.names;
        let matched = self.known.entry(pattern.as_str()).or_insert_with(|| {
            let mut matched = Bits::empty(names.len());
            for (number, name) in names.iter().enumerate() {
                if pattern.matches(name) {
                    matched.insert(number);
                }
            }
            matched
        });
        all.extend(matched);
    }
}

/// Goes through the patterns of subjects, with groups replaced by their members.
pub(crate) fn patterns<'m>(subjects: &'m [Subject], groups: &'m Groups) -> impl Iterator<Item = &'m NamePattern> {
    subjects.iter().flat_map(|subject| match subject {
        Subject::Bots(pattern) => std::slice::from_ref(pattern),
        Subject::Group(name) => groups.get(name).map(Vec::as_slice).unwrap_or_default(),
        Subject::Outside(_) => &[],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bots(pattern: &str) -> Subject {
        Subject::Bots(NamePattern::parse(pattern).unwrap())
    }

    #[test]
    fn subjects_mean_bots_of_the_mesh_only() {
        let names = ["prod/a", "prod/b", "staging/a", "staging/b"].map(|name| BotName::parse(name).unwrap());
        let groups = Groups::from([("both".into(), vec![NamePattern::parse("*/b").unwrap()])]);
        let subjects = [
            vec![bots("prod/a")],
            vec![bots("prod/x")],
            vec![bots("prod/*")],
            vec![Subject::Group("both".into()), bots("prod/a")],
            vec![Subject::Group("none".into())],
            vec![bots("**")],
            vec![bots("prod/*"), bots("**")],
        ];
        let mut roster = Roster::new(&names, &groups);
        let found: Vec<Vec<usize>> = subjects
            .iter()
            .map(|subject| roster.expand(subject).iter().collect())
            .collect();
        assert_eq!(
            found,
            [
                vec![0],
                vec![],
                vec![0, 1],
                vec![0, 1, 3],
                vec![],
                vec![0, 1, 2, 3],
                vec![0, 1, 2, 3]
            ]
        );
        assert_eq!(
            (roster.len(), roster.number(&names[2]), roster.name(2)),
            (4, Some(2), Some(&names[2]))
        );
    }
}
