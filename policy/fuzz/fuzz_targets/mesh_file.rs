//! Any text is read or refused; what is read can be written and read again, whole and as a slice.

#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::{Generation, Source, load};
use spiffe::id::HostName;
use spiffe::time::Timestamp;

fuzz_target!(|text: &str| {
    let source = |text: String| [Source { name: "mesh.yaml".to_owned(), text }];
    let mesh = match load(&source(text.to_owned())) {
        Ok(mesh) => mesh,
        Err(errors) => {
            assert!(!errors.is_empty() && !errors.render(true).is_empty());
            return;
        }
    };
    assert!(mesh.warnings().render(false).is_empty() == mesh.warnings().is_empty());
    drop(mesh.run_tests(Timestamp::from_unix_millis(0)));
    drop(mesh.compile(Generation::default()));
    let again = load(&source(mesh.canonical_json())).expect("what was written is read");
    assert_eq!(again, mesh);
    let host = HostName::parse("web-1").expect("a name");
    let slice = load(&source(mesh.slice(&host))).expect("a slice is read");
    assert_eq!(slice.entries_for(&host), mesh.entries_for(&host));
});
