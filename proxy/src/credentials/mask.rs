//! Takes values out of what a service answers, whatever its pieces are: a value and all its forms become asterisks, as many
//! as it had bytes, so that lengths stay true.

use std::fmt;
use std::ops::Range;
use std::task::{Poll, ready};

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, MatchKind};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::{Frame, SizeHint};
use zeroize::Zeroizing;

use super::forms;

/// What stands where a value stood.
const MASK: u8 = b'*';

/// The most bytes of forms that are looked for by a table with a row for each of them: a row has half a KiB, and tokens that say
/// who they are for are long.
const TABLE_BYTES_MAX: usize = 4 * 1024;

/// Finds the forms of values.
pub(crate) struct Finder {
    search: AhoCorasick,
    patterns: Vec<Pattern>,
    /// One less than the longest form.
    hold_max: usize,
}

/// A form, and how far it begins again inside of itself (Knuth, Morris and Pratt's table).
struct Pattern {
    bytes: Zeroizing<Vec<u8>>,
    borders: Vec<usize>,
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Finder({} forms)", self.patterns.len())
    }
}

impl Finder {
    /// Finds the forms of these values.
    ///
    /// # Errors
    ///
    /// When they are too many or too long together to be looked for.
    pub(crate) fn new<'v>(values: impl IntoIterator<Item = &'v [u8]>) -> Result<Self, BuildError> {
        let forms: Vec<_> = values.into_iter().flat_map(forms::of).collect();
        let long = forms.iter().map(|form| form.len()).sum::<usize>() > TABLE_BYTES_MAX;
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(long.then_some(AhoCorasickKind::ContiguousNFA))
            .build(forms.iter().map(|form| form.as_slice()))?;
        let longest = forms.iter().map(|form| form.len()).max().unwrap_or_default();
        Ok(Self {
            search,
            patterns: forms.into_iter().map(Pattern::new).collect(),
            hold_max: longest.saturating_sub(1),
        })
    }

    /// There is nothing to find.
    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Tells whether a form is in the text.
    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        self.search.is_match(text)
    }

    /// Masks every form in the text, those too that overlap. Says whether there was one.
    fn mask(&self, text: &mut [u8]) -> bool {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for found in self.search.find_overlapping_iter(&*text).map(|found| found.range()) {
            // They come in the order of their ends: those that touch become one, so that no byte is masked twice.
            let mut start = found.start;
            while let Some(last) = ranges.pop_if(|last| last.end >= start) {
                start = start.min(last.start);
            }
            ranges.push(start..found.end);
        }
        for range in &ranges {
            if let Some(found) = text.get_mut(range.clone()) {
                found.fill(MASK);
            }
        }
        !ranges.is_empty()
    }

    /// How much of the end of a text may be the beginning of a form.
    fn begins(&self, text: &[u8]) -> usize {
        let tail = text.get(text.len().saturating_sub(self.hold_max)..).unwrap_or_default();
        self.patterns
            .iter()
            .map(|pattern| pattern.begins(tail))
            .max()
            .unwrap_or_default()
    }

    /// Masks values in a whole text. Says whether there was one.
    pub(crate) fn mask_text(&self, text: &mut [u8]) -> bool {
        self.mask(text)
    }

    /// Masks values in fields. Says whether there was one.
    pub(crate) fn mask_fields(&self, fields: &mut HeaderMap) -> bool {
        let mut any = false;
        for value in fields.values_mut() {
            if !self.is_in(value.as_bytes()) {
                continue;
            }
            any = true;
            let mut masked = value.as_bytes().to_vec();
            self.mask(&mut masked);
            // What a field held it still may: asterisks are visible. If it could not, the field would be empty.
            *value = HeaderValue::from_bytes(&masked).unwrap_or(HeaderValue::from_static(""));
        }
        any
    }
}

impl Pattern {
    fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        let mut borders = vec![0; bytes.len()];
        let mut length = 0;
        for at in 1..bytes.len() {
            length = step(&bytes, &borders, length, bytes.get(at).copied());
            if let Some(border) = borders.get_mut(at) {
                *border = length;
            }
        }
        Self { bytes, borders }
    }

    /// How much of the end of a text, which does not hold the whole form at its end, is the beginning of the form.
    fn begins(&self, text: &[u8]) -> usize {
        let mut length = 0;
        for byte in text {
            if length == self.bytes.len() {
                length = self.borders.last().copied().unwrap_or_default();
            }
            length = step(&self.bytes, &self.borders, length, Some(*byte));
        }
        if length == self.bytes.len() {
            length = self.borders.last().copied().unwrap_or_default();
        }
        length
    }
}

/// How much of a form is matched with one byte more.
fn step(form: &[u8], borders: &[usize], mut length: usize, byte: Option<u8>) -> usize {
    while length > 0 && form.get(length).copied() != byte {
        length = borders.get(length - 1).copied().unwrap_or_default();
    }
    if form.get(length).copied() == byte {
        length + 1
    } else {
        0
    }
}

/// Masks values in a body that comes in pieces. What may be the beginning of a value is held back until it is none.
#[derive(Debug, Default)]
pub(crate) struct Mask {
    held: BytesMut,
    found: bool,
}

impl Mask {
    /// Takes a piece and gives what may be passed on, which can be empty.
    pub(crate) fn pass(&mut self, finder: &Finder, piece: Bytes) -> Bytes {
        if self.held.is_empty() && !finder.is_in(&piece) {
            let hold = finder.begins(&piece);
            if hold == 0 {
                return piece;
            }
            let mut piece = piece;
            let rest = piece.split_off(piece.len() - hold);
            self.held.extend_from_slice(&rest);
            return piece;
        }
        self.held.extend_from_slice(&piece);
        let mut text = std::mem::take(&mut self.held);
        let hold = finder.begins(&text);
        self.found |= finder.mask(&mut text);
        self.held = text.split_off(text.len() - hold);
        text.freeze()
    }

    /// Gives what was held back, once nothing more comes.
    pub(crate) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }

    /// How much is held back.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Tells whether something is held back.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Tells whether a value was found so far.
    pub(crate) const fn found(&self) -> bool {
        self.found
    }
}

/// The same for a body as frames, of which the trailers come last.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    mask: Mask,
    found: bool,
    /// What comes after what was held back.
    trailers: Option<HeaderMap>,
    over: bool,
}

impl Frames {
    /// Asks for the next frame that may be passed on. A piece of which nothing may be yet is not one.
    pub(crate) fn poll<E>(
        &mut self,
        finder: &Finder,
        mut next: impl FnMut() -> Poll<Option<Result<Frame<Bytes>, E>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        loop {
            if self.over {
                return Poll::Ready(self.last().map(Ok));
            }
            match ready!(next()) {
                Some(Ok(frame)) => {
                    if let Some(passed) = self.pass(finder, frame) {
                        return Poll::Ready(Some(Ok(passed)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.over = true,
            }
        }
    }

    /// Masks a frame; nothing where all of it is held back.
    fn pass(&mut self, finder: &Finder, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        match frame.into_data() {
            Ok(data) => {
                let passed = self.mask.pass(finder, data);
                self.found |= self.mask.found();
                (!passed.is_empty()).then(|| Frame::data(passed))
            }
            Err(frame) => {
                let mut trailers = frame.into_trailers().unwrap_or_default();
                self.found |= finder.mask_fields(&mut trailers);
                (self.trailers, self.over) = (Some(trailers), true);
                self.last()
            }
        }
    }

    /// What was held back, and then the trailers.
    fn last(&mut self) -> Option<Frame<Bytes>> {
        if self.mask.holds() {
            return Some(Frame::data(self.mask.rest()));
        }
        self.trailers.take().map(Frame::trailers)
    }

    /// Tells whether something is held back.
    pub(crate) fn holds(&self) -> bool {
        self.mask.holds() || self.trailers.is_some()
    }

    /// How much is to come: what is, and what is held back.
    pub(crate) fn with_held(&self, hint: SizeHint) -> SizeHint {
        match hint.exact() {
            Some(exact) => SizeHint::with_exact(exact + self.mask.held() as u64),
            None => hint,
        }
    }

    /// Tells whether a value was found so far.
    pub(crate) const fn found(&self) -> bool {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    const KEY: &[u8] = b"sk-ant-sk-ant-0123/+\"key";

    fn finder() -> Finder {
        Finder::new([KEY]).unwrap()
    }

    fn passed(finder: &Finder, pieces: &[&[u8]]) -> Vec<u8> {
        let mut mask = Mask::default();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&mask.pass(finder, Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&mask.rest());
        out
    }

    proptest! {
        #[test]
        fn however_a_body_is_cut_the_value_does_not_pass_and_all_else_does(
            before in "[a-z0-9-]{0,40}",
            after in "[a-z0-9-]{0,40}",
            form in 0usize..4,
            cuts in prop::collection::vec(0usize..200, 0..12),
        ) {
            let text = format!("{before}{}{after}", std::str::from_utf8(KEY).unwrap());
            let text = match form {
                0 => text.into_bytes(),
                1 => STANDARD.encode(&text).into_bytes(),
                2 => text.bytes().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect(),
                _ => text.replace('/', "%2F").replace('+', "%2B").replace('"', "%22").into_bytes(),
            };
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            let finder = finder();
            let out = passed(&finder, &pieces);
            prop_assert_eq!(out.len(), text.len());
            prop_assert!(!finder.is_in(&out));
            for (was, is) in text.iter().zip(&out) {
                prop_assert!(was == is || *is == MASK);
            }
            if form != 1 {
                let kept = out.iter().filter(|byte| **byte != MASK).count();
                let least = if form == 2 { 2 * (before.len() + after.len()) } else { before.len() + after.len() };
                prop_assert_eq!(kept, least);
            }
        }

        #[test]
        fn a_text_without_the_value_passes_as_it_is(text in "[sk\\-ant0123/+\"e y]{0,200}", cut in 0usize..200) {
            let finder = finder();
            prop_assume!(!finder.is_in(text.as_bytes()));
            let cut = cut.min(text.len());
            let (one, two) = text.as_bytes().split_at(cut);
            prop_assert_eq!(passed(&finder, &[one, two]), text.as_bytes());
        }
    }

    #[test]
    fn only_what_may_be_the_beginning_of_a_value_waits() {
        let finder = finder();
        let mut mask = Mask::default();
        assert_eq!(
            mask.pass(&finder, Bytes::from_static(b"data: hello\n\n")),
            "data: hello\n\n"
        );
        assert!(!mask.holds(), "an event is passed on at once");
        assert_eq!(mask.pass(&finder, Bytes::from_static(b"data: sk-a")), "data: ");
        assert!(mask.holds() && !mask.found());
        assert_eq!(mask.pass(&finder, Bytes::from_static(b"lways\n")), "sk-always\n");
        assert!(!mask.holds());
    }

    #[test]
    fn a_value_that_begins_again_inside_of_itself_is_found() {
        let finder = finder();
        let text = [b"sk-ant-".as_slice(), KEY].concat();
        let out = passed(&finder, &text.iter().map(std::slice::from_ref).collect::<Vec<_>>());
        assert_eq!(out, [b"sk-ant-".as_slice(), &vec![MASK; KEY.len()]].concat());
    }

    #[test]
    fn forms_that_overlap_are_masked_whole() {
        let finder = Finder::new([&b"aaaaaaaaab"[..], b"aaaaaaaab-tail"]).unwrap();
        let out = passed(&finder, &[b"x aaaaaaaaaaab-tail aaaaaaaaab y"]);
        assert_eq!(out, b"x aa*************** ********** y");
    }

    #[test]
    fn fields_are_masked_too() {
        let finder = finder();
        let mut fields = HeaderMap::new();
        let echo = [b"Bearer ".as_slice(), KEY].concat();
        fields.insert("x-echo", HeaderValue::from_bytes(&echo).unwrap());
        fields.insert("x-other", HeaderValue::from_static("sk-ant-sk-ant-0123"));
        assert!(finder.mask_fields(&mut fields));
        assert_eq!(fields["x-echo"], format!("Bearer {}", "*".repeat(KEY.len())));
        assert_eq!(fields["x-other"], "sk-ant-sk-ant-0123");
        assert!(!finder.mask_fields(&mut fields));
    }
}
