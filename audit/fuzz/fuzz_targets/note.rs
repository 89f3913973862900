//! A note that is read is written the same, and no bytes panic: notes, keys, histories, tile paths.

#![no_main]

use audit::VerifierKey;
use audit::history::History;
use audit::note::Note;
use audit::tile::TileId;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
    }
    let history = History::split(bytes);
    let whole: usize = history.notes.iter().map(|(_, note)| note.len() + 1).sum();
    assert_eq!(history.torn.unwrap_or(bytes.len()), whole);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = VerifierKey::parse(text) {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(id) = TileId::parse(text) {
        assert_eq!(id.path(), text);
    }
});
