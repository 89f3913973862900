//! A segment that is held open, so that it stays what it was for whoever reads it, whatever is pruned meanwhile.

use std::fs::File;
use std::io::{self, Seek as _};

use super::{Form, Segment, kept_name};

/// The segment and its file. One reads it at a time.
#[derive(Debug)]
pub(crate) struct Held {
    segment: Segment,
    file: File,
}

impl Held {
    /// Opens a segment. One that was pruned since it was listed is what is kept of it.
    pub(crate) fn open(segment: &Segment) -> io::Result<Self> {
        let mut segment = segment.clone();
        let file = match File::open(&segment.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && segment.form == Form::Whole => {
                segment.path.set_file_name(kept_name(segment.first));
                segment.form = Form::Kept;
                File::open(&segment.path).map_err(|_not_pruned| error)?
            }
            file => file?,
        };
        Ok(Self { segment, file })
    }

    /// Which segment it is, as it was found.
    pub(crate) const fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Its file, from the beginning. Whoever had it before has done with it.
    pub(crate) fn file(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Ok(file)
    }

    /// Whether its place still has the bytes that are held.
    pub(crate) fn is_there(&self) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let there = std::fs::metadata(&self.segment.path);
        let inode = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        there.ok().map(inode) == self.file.metadata().ok().map(inode)
    }
}
