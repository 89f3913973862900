//! An accepted path is canonical, reads as itself, and is what WHATWG readers (browsers, Node) see.

#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::CanonicalPath;

fuzz_target!(|raw: &[u8]| {
    let Ok(path) = CanonicalPath::parse(raw) else {
        return;
    };
    assert_eq!(CanonicalPath::parse(path.as_str().as_bytes()).as_ref(), Ok(&path));
    let url = url::Url::parse(&format!("http://a{path}")).expect("a URL");
    assert_eq!((url.path(), url.query(), url.fragment()), (path.as_str(), None, None));
});
