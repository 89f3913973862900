//! One pass over all records, which computes everything again and decides at
//! the end who is wrong where two do not agree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::IgnoredAny;
use spiffe::time::Timestamp;

use super::cosigned::CosignedHeads;
use super::heads::{Head, Heads};
use super::stored::{self, Differs, StoredHashes};
use super::{Finding, VerifyFailure, VerifyReport};
use crate::epoch;
use crate::hash::Hash;
use crate::ledger::StoredTree;
use crate::proof::Subtree;
use crate::pruned::{Forged, Pruned};
use crate::segment::{Form, Read, Reader, Segment};
use crate::tile::{TILE_WIDTH, Tile};
use crate::tree::Tree;

/// Where a record lies.
#[derive(Clone, Debug)]
struct Place {
    index: u64,
    file: Arc<PathBuf>,
    offset: u64,
}

/// The pass.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    dir: &'a Path,
    heads: &'a Heads,
    /// Heads that are not reached yet.
    ahead: std::slice::Iter<'a, Head>,
    next: Option<&'a Head>,
    tree: Tree,
    /// Where the records of the lowest unfinished tile lie.
    places: Vec<Place>,
    /// The first record that its tile does not know.
    record: Option<Place>,
    /// The first tile that is not the computed one, and the record it is about.
    tile: Option<(PathBuf, u64, u64)>,
    /// The first head with another root.
    false_head: Option<&'a Head>,
    /// The first record behind the last head that was true.
    behind_true: Option<Place>,
    /// The newest head was reached and is true.
    proven: bool,
    end: Place,
    torn_bytes: u64,
    segments: u64,
    cosigned: CosignedHeads,
    /// Segments of which not all is there.
    gone: Vec<Gone>,
    /// What the ledger says that it pruned, by the first record of the segment.
    pruned: BTreeMap<u64, Vec<Pruned>>,
    /// The first record that tells of pruning and that the ledger has not signed.
    forged: Option<Place>,
    hashes: StoredHashes<'a>,
}

/// A segment of which not all is there.
#[derive(Debug)]
struct Gone {
    /// Its first record that is not there.
    place: Place,
    first: u64,
    end: u64,
    /// The hash of its first record.
    leaf: Hash,
    /// SHA-256 of what is kept.
    kept: Hash,
    records: u64,
}

impl<'a> Walk<'a> {
    /// Starts before the first record.
    pub(super) fn new(dir: &'a Path, heads: &'a Heads, cosigned: CosignedHeads) -> Self {
        let mut ahead = heads.all.iter();
        let end = Place {
            index: 0,
            file: Arc::new(dir.join(crate::segment::SEGMENTS)),
            offset: 0,
        };
        Self {
            dir,
            heads,
            next: ahead.next(),
            ahead,
            tree: Tree::new(),
            places: Vec::new(),
            record: None,
            tile: None,
            false_head: None,
            behind_true: None,
            proven: false,
            end,
            torn_bytes: 0,
            segments: 0,
            cosigned,
            gone: Vec::new(),
            pruned: BTreeMap::new(),
            forged: None,
            hashes: StoredHashes::new(dir),
        }
    }

    /// Checks the heads of an empty ledger.
    pub(super) fn begin(&mut self) {
        self.check_heads();
    }

    /// Reads one segment.
    pub(super) fn segment(&mut self, segment: &Segment, last: bool) -> Result<(), VerifyFailure> {
        let index = self.tree.size();
        if segment.first != index {
            let gap = VerifyFailure::at(&segment.path, 0, Finding::Gap { expected: index });
            let record = self.record_failure().or_else(|| self.unfinished_failure());
            return Err(record.unwrap_or(gap.with_index(index)));
        }
        self.segments = self.segments.saturating_add(1);
        let unreadable = |source| VerifyFailure::unreadable(&segment.path, source);
        let mut reader = Reader::open(segment).map_err(unreadable)?;
        let file = Arc::new(reader.segment().path.clone());
        let kept = reader.segment().form == Form::Kept;
        let mut gone = None;
        let mut line = Vec::new();
        loop {
            let offset = reader.offset();
            let place = |index| Place {
                index,
                file: Arc::clone(&file),
                offset,
            };
            let read = reader.read(&mut line).map_err(unreadable)?;
            match read {
                Read::Record { index, .. } => self.pass_over(index, &place, &mut gone)?,
                Read::End => self.pass_over(reader.next(), &place, &mut gone)?,
                Read::Torn | Read::TooLong | Read::NotKept => {}
            }
            let index = self.tree.size();
            let place = place(index);
            self.end = place.clone();
            match read {
                Read::Record { .. } if is_object(&line) => self.record(place, &line)?,
                Read::End => break,
                // What a crash tore is behind the newest head and at the end.
                Read::Torn if last && !kept && index >= self.heads.newest.size => {
                    self.torn_bytes = line.len() as u64;
                    break;
                }
                Read::Record { .. } | Read::Torn | Read::TooLong | Read::NotKept => {
                    let bad = place.failure(Finding::NotARecord);
                    let record = self.record_failure().or_else(|| self.unfinished_failure());
                    return Err(record.unwrap_or(bad));
                }
            }
        }
        let Some((place, records)) = gone else { return Ok(()) };
        self.gone.push(Gone {
            place,
            first: segment.first,
            end: self.tree.size(),
            leaf: self.hashes.read(segment.first)?,
            kept: reader.hash().map_err(unreadable)?,
            records,
        });
        Ok(())
    }

    /// Passes over records that are not there: their hashes are in the tiles, and whether those are true is found out as
    /// of all others.
    fn pass_over(
        &mut self,
        to: u64,
        place: &impl Fn(u64) -> Place,
        gone: &mut Option<(Place, u64)>,
    ) -> Result<(), VerifyFailure> {
        while self.tree.size() < to {
            let index = self.tree.size();
            let place = place(index);
            let (_, count) = gone.get_or_insert_with(|| (place.clone(), 0));
            *count = count.saturating_add(1);
            let hash = self.hashes.read(index)?;
            self.add(place, hash)?;
        }
        Ok(())
    }

    /// The first segment of which records are gone without a word of the ledger.
    fn cut_out(&self) -> Option<VerifyFailure> {
        let cut = self.gone.iter().find(|gone| self.word_for(gone).is_none())?;
        let last = cut.end.saturating_sub(1);
        Some(cut.place.failure(Finding::NotPruned { last }))
    }

    /// What the ledger says of a segment of which records are gone.
    fn word_for(&self, gone: &Gone) -> Option<&Pruned> {
        let said = self.pruned.get(&gone.first)?;
        said.iter()
            .find(|said| said.end == gone.end && said.leaf == gone.leaf && said.kept == gone.kept)
    }

    /// Decides, when all records were read.
    pub(super) fn finish(mut self, tiled: u64) -> Result<VerifyReport, VerifyFailure> {
        let size = self.tree.size();
        let covered = self.heads.newest.size;
        for tile in self.tree.partial_tiles() {
            self.compare(&tile)?;
        }
        if !self.proven {
            let missing = self.end.failure(Finding::Missing {
                covered: covered.max(tiled),
            });
            let altered = || self.behind_true.as_ref().map(|at| at.failure(Finding::Record));
            // Where the records are gone, only the tiles could have been changed.
            let tile = self.tile.as_ref().filter(|_| !self.gone.is_empty());
            let tile =
                tile.map(|(file, offset, index)| VerifyFailure::at(file, *offset, Finding::Tile).with_index(*index));
            let found = self.record_failure().or(tile);
            return Err(match size < covered {
                true => found.unwrap_or(missing),
                false => found.or_else(altered).unwrap_or(missing),
            });
        }
        if let Some(failure) = self.cosigned.failure(|what| self.end.failure(what)) {
            return Err(failure);
        }
        // The newest head is true, so the records are; an older one that says
        // otherwise was signed over other records.
        if let Some(head) = self.false_head {
            let failure = VerifyFailure::at(self.dir.join(head.file), head.offset, Finding::NotAPrefix);
            return Err(failure.with_index(head.checkpoint.size));
        }
        if let Some((file, offset, index)) = &self.tile
            && *index < covered
        {
            return Err(VerifyFailure::at(file, *offset, Finding::Tile).with_index(*index));
        }
        if let Some(failure) = self.record_failure() {
            return Err(failure);
        }
        if size < tiled {
            return Err(self.end.failure(Finding::Missing { covered: tiled }));
        }
        self.check_edge()?;
        if let Some(forged) = &self.forged {
            return Err(forged.failure(Finding::ForgedPruning));
        }
        if let Some(failure) = self.cut_out() {
            return Err(failure);
        }
        Ok(self.report())
    }

    /// Adds a record that is there.
    fn record(&mut self, place: Place, line: &[u8]) -> Result<(), VerifyFailure> {
        match Pruned::of_record(line, &self.heads.key) {
            Ok(Some(pruned)) if pruned.end <= place.index => {
                self.pruned.entry(pruned.first).or_default().push(pruned);
            }
            Ok(Some(_)) | Err(Forged) if self.forged.is_none() => self.forged = Some(place.clone()),
            Ok(_) | Err(Forged) => {}
        }
        self.add(place, Hash::leaf(line))
    }

    /// Adds a hash, and compares what it completes.
    fn add(&mut self, place: Place, hash: Hash) -> Result<(), VerifyFailure> {
        if self.behind_true.is_none() {
            self.behind_true = Some(place.clone());
        }
        self.places.push(place);
        let mut full = Vec::new();
        self.tree.push(hash, &mut full);
        for tile in full {
            self.compare(&tile)?;
        }
        if self.tree.size().is_multiple_of(TILE_WIDTH) {
            self.places.clear();
        }
        self.check_heads();
        Ok(())
    }

    /// Compares a computed tile with what is stored, and remembers the first
    /// difference of each sort.
    fn compare(&mut self, tile: &Tile) -> Result<(), VerifyFailure> {
        let mut differs = Vec::new();
        let there = stored::compare(self.dir, tile, &mut differs)?;
        let needed = tile.id == tile.id.full() && tile.id.leaves() <= self.heads.newest.size;
        if needed && !there {
            let missing = VerifyFailure::at(self.dir.join(tile.id.path()), 0, Finding::TileMissing);
            return Err(missing.with_index(tile.id.first_leaf(0)));
        }
        for Differs { id, offset } in differs {
            let place = offset / 32;
            let index = id.first_leaf(place.min(id.width().saturating_sub(1)));
            if self.tile.is_none() {
                self.tile = Some((self.dir.join(id.path()), offset, index));
            }
            if id.level() == 0 && self.record.is_none() {
                let place = usize::try_from(index % TILE_WIDTH).unwrap_or(usize::MAX);
                self.record = self.places.get(place).cloned();
            }
        }
        Ok(())
    }

    /// Holds the heads of this size against the tree.
    fn check_heads(&mut self) {
        while let Some(head) = self.next.filter(|head| head.checkpoint.size == self.tree.size()) {
            if head.checkpoint.root == self.tree.root() {
                self.behind_true = None;
                self.proven |= head.checkpoint == self.heads.newest;
            } else if self.false_head.is_none() {
                self.false_head = Some(head);
            }
            self.next = self.ahead.next();
        }
        self.cosigned.check(self.tree.size(), || self.tree.root());
    }

    /// All tiles of the newest head's edge must be there.
    fn check_edge(&self) -> Result<(), VerifyFailure> {
        for id in Tree::edge_of(self.heads.newest.size) {
            if !stored::is_there(self.dir, id) {
                let missing = VerifyFailure::at(self.dir.join(id.path()), 0, Finding::TileMissing);
                return Err(missing.with_index(id.first_leaf(0)));
            }
        }
        Ok(())
    }

    /// The first record that its tile does not know.
    fn record_failure(&self) -> Option<VerifyFailure> {
        self.record.as_ref().map(|place| place.failure(Finding::Record))
    }

    /// The first record since the last full tile that the stored one does not know: what is wrong later may begin there.
    fn unfinished_failure(&self) -> Option<VerifyFailure> {
        let computed = self
            .tree
            .partial_tiles()
            .into_iter()
            .find(|tile| tile.id.level() == 0)?;
        let stored = StoredTree::new(self.dir, self.heads.newest.size);
        let known = |index| stored.hash(Subtree { level: 0, index }).ok().flatten();
        let mut rows = self.places.iter().zip(&computed.hashes);
        let (place, _) = rows.find(|(place, hash)| known(place.index).is_some_and(|stored| stored != **hash))?;
        Some(place.failure(Finding::Record))
    }

    /// Time of the newest record that was pruned.
    fn pruned_until(&self) -> Option<Timestamp> {
        let words = self.gone.iter().filter_map(|gone| self.word_for(gone));
        words.map(|word| word.until).max()
    }

    fn report(&self) -> VerifyReport {
        let (records, covered) = (self.tree.size(), self.heads.newest.size);
        VerifyReport {
            origin: self.heads.newest.origin.to_string(),
            key: self.heads.key.to_string(),
            records,
            covered,
            not_covered: records.saturating_sub(covered),
            torn_bytes: self.torn_bytes,
            checkpoints: self.heads.all.len() as u64,
            segments: self.segments,
            epoch: epoch::split(self.heads.key.name()).1,
            cosigned: self.cosigned.newest(),
            set_back: self.cosigned.set_back(),
            witnessed: self.cosigned.witnessed(),
            witnesses: self.cosigned.witnesses(),
            pruned: self.gone.iter().map(|gone| gone.records).sum(),
            pruned_until: self.pruned_until(),
        }
    }
}

impl Place {
    fn failure(&self, what: Finding) -> VerifyFailure {
        VerifyFailure::at(self.file.as_ref(), self.offset, what).with_index(self.index)
    }
}

/// Says whether a line is one JSON object and nothing else.
fn is_object(line: &[u8]) -> bool {
    line.first() == Some(&b'{') && serde_json::from_slice::<IgnoredAny>(line).is_ok()
}
