use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use proptest::prelude::*;
use spiffe::time::Clock;

use super::frame::{self, BODY_BYTES_MAX, FrameError};
use super::wire::{Answer, Question, Refused};
use super::{Helper, reads_back, serve};
use crate::attest::AttestConfig;
use crate::attest::error::Why;
use crate::attest::exe::{Suspect, file_id};
use crate::attest::scan::Among;
use crate::attest::sight::{Candidates, Glimpse, Look, Programs, Seen, Sight, Wanted};

/// A helper that a thread of this process plays.
pub(in crate::attest) fn helper() -> Helper {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let sight = Arc::new(Sight::new(AttestConfig::default(), Clock::system(), false).unwrap());
    std::thread::spawn(move || serve::serve(&theirs, &sight));
    Helper::new(ours, None).unwrap()
}

fn look(pid: u32) -> Look {
    Look {
        pid,
        socket: None,
        wanted: None,
    }
}

fn own_program() -> (String, (u64, u64)) {
    let path = std::env::current_exe().unwrap();
    let file = file_id(&path).unwrap();
    (path.to_str().unwrap().to_owned(), file)
}

/// A socket of this process: what keeps it open, its number and its inode.
fn socket() -> (UnixStream, u32, u64) {
    let (one, _two) = UnixStream::pair().unwrap();
    let inode = File::from(OwnedFd::from(one.try_clone().unwrap()))
        .metadata()
        .unwrap()
        .ino();
    let fd = one.as_raw_fd().cast_unsigned();
    (one, fd, inode)
}

#[test]
fn one_look_tells_all_that_is_asked_of_a_process_that_is_pinned() {
    let (helper, own) = (helper(), std::process::id());
    let sight = Sight::new(AttestConfig::default(), Clock::system(), false).unwrap();
    let (path, file) = own_program();
    let (_socket, fd, inode) = socket();
    let wanted = Wanted {
        paths: vec![path.clone(), "/nowhere".to_owned()],
        suspect: None,
    };
    for (inode, holds) in [(inode, true), (inode + 1, false)] {
        let look = Look {
            pid: own,
            socket: Some((fd, inode)),
            wanted: Some(wanted.clone()),
        };
        let glimpse = helper.glance(look.clone()).unwrap().glimpse;
        assert_eq!(glimpse, sight.glance(look).unwrap().glimpse);
        assert_eq!((glimpse.program.file, glimpse.holds), (Some(file), holds));
        assert_eq!(glimpse.programs.unwrap().paths, std::slice::from_ref(&path));
    }
    let glance = helper.glance(look(own)).unwrap();
    assert_eq!((glance.glimpse.holds, glance.glimpse.programs), (false, None));
    let mut byte = [0u8; 1];
    assert_eq!(
        rustix::io::pread(&glance.map, &mut byte, 0),
        Ok(1),
        "the map is this process's"
    );
}

#[test]
fn every_question_is_answered_as_this_process_would_itself() {
    let (helper, own) = (helper(), std::process::id());
    let sight = Sight::new(AttestConfig::default(), Clock::system(), false).unwrap();
    let (path, file) = own_program();
    let (_socket, fd, inode) = socket();
    let wanted = Wanted {
        paths: vec![path.clone(), "/nowhere".to_owned()],
        suspect: None,
    };
    let suspect = Some(Suspect {
        uid: 61_009,
        groups: Vec::new(),
    });
    let candidates = Candidates { file, wanted };
    let found = helper.programs(candidates.clone()).unwrap();
    assert_eq!(found, Sight::programs(&candidates));
    assert_eq!(found.paths, [path]);
    let wanted = Wanted {
        suspect,
        ..candidates.wanted
    };
    let candidates = Candidates { file, wanted };
    assert_eq!(
        helper.programs(candidates.clone()).unwrap(),
        Sight::programs(&candidates)
    );

    assert_eq!(helper.digest(own, false).unwrap(), None, "not known yet");
    assert_eq!(helper.digest(own, true).unwrap(), sight.digest(own, true).unwrap());

    assert!(helper.holds(own, fd, inode).unwrap());
    assert!(!helper.holds(own, fd, inode + 1).unwrap());
    for (among, sweep) in [
        (Among::One(own), false),
        (Among::One(own), true),
        (Among::Listed(vec![own], 0), false),
    ] {
        let found = helper.holders(&among, &BTreeSet::from([inode]), sweep).unwrap();
        assert_eq!(found, sight.holders(&among, &BTreeSet::from([inode]), sweep).unwrap());
    }
}

#[test]
fn a_process_that_is_gone_and_a_bound_that_is_met_are_said_in_the_same_words() {
    let helper = helper();
    assert!(matches!(helper.glance(look(u32::MAX)), Err(Why::Exited(u32::MAX))));
    assert!(matches!(helper.digest(u32::MAX, true), Err(Why::Exited(u32::MAX))));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let config = AttestConfig {
        processes_max: 0,
        exe_bytes_max: 1,
        ..AttestConfig::default()
    };
    let sight = Arc::new(Sight::new(config, Clock::system(), false).unwrap());
    std::thread::spawn(move || serve::serve(&theirs, &sight));
    let bounded = Helper::new(ours, None).unwrap();
    let own = std::process::id();
    assert!(matches!(
        bounded.digest(own, true),
        Err(Why::ScanBound("exe_bytes_max"))
    ));
    let found = bounded.holders(&Among::One(own), &BTreeSet::from([1]), false);
    assert!(matches!(found, Err(Why::ScanBound("processes_max"))));
}

#[test]
fn many_threads_ask_at_once_and_each_is_given_its_own_answer() {
    let helper = helper();
    std::thread::scope(|scope| {
        for number in 0..64_u32 {
            let helper = &helper;
            scope.spawn(move || {
                for _again in 0..50 {
                    assert!(
                        matches!(helper.glance(look(u32::MAX - number)), Err(Why::Exited(pid)) if pid == u32::MAX - number)
                    );
                }
            });
        }
    });
}

#[test]
fn a_helper_that_is_gone_or_talks_nonsense_refuses_and_is_not_believed_later() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let helper = Helper::new(ours, None).unwrap();
    let playing = std::thread::spawn(move || {
        for answer in [&b"{\"holds\":true}"[..], b"nonsense", b""] {
            let (_, channel) = frame::receive(&theirs).unwrap().unwrap();
            let mut channel = UnixStream::from(channel.unwrap());
            frame::receive(&channel).unwrap();
            match answer {
                b"" => channel.write_all(&[0xff; 8]).unwrap(),
                answer => frame::send(&channel, answer, None).unwrap(),
            }
            // The proxy gives a channel up after nonsense; after an answer to another question it keeps it.
            if answer.starts_with(b"{") {
                frame::receive(&channel).unwrap();
                frame::send(&channel, b"nonsense", None).unwrap();
            }
        }
    });
    assert!(helper.glance(look(1)).is_err(), "an answer to another question");
    for _nonsense in 0..3 {
        assert!(helper.glance(look(1)).is_err());
    }
    playing.join().unwrap();
    assert!(helper.glance(look(1)).is_err(), "its end");
    assert!(helper.holds(1, 1, 1).is_err());
}

#[test]
fn a_second_file_descriptor_and_an_unasked_one_are_refused() {
    let (one, two) = UnixStream::pair().unwrap();
    let file = File::open("/proc/self/status").unwrap();
    frame::send(&one, b"x", Some(file.as_fd())).unwrap();
    let (body, fd) = frame::receive(&two).unwrap().unwrap();
    assert_eq!((body.as_slice(), fd.is_some()), (&b"x"[..], true));
    // Half a frame with one, the rest with another.
    for part in [&[0, 0, 0, 2, b'a'][..], b"b"] {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        let fds = [file.as_fd()];
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
        let parts = [std::io::IoSlice::new(part)];
        rustix::net::sendmsg(&one, &parts, &mut control, rustix::net::SendFlags::empty()).unwrap();
    }
    assert!(frame::receive(&two).is_err());
}

#[test]
fn a_frame_that_is_too_long_or_followed_by_more_is_refused_and_half_a_frame_is_not_one() {
    let longest = u32::try_from(BODY_BYTES_MAX).unwrap();
    assert_eq!(frame::body(&longest.to_be_bytes()), Ok(None));
    assert_eq!(
        frame::body(&(longest + 1).to_be_bytes()),
        Err(FrameError::TooLong(BODY_BYTES_MAX + 1))
    );
    assert_eq!(frame::body(&[0, 0, 0, 1, 7, 8]), Err(FrameError::Trailing(1)));
    assert!(frame::encode(&vec![0; BODY_BYTES_MAX + 1]).is_err());
    let (one, two) = UnixStream::pair().unwrap();
    (&one).write_all(&[0, 0, 0, 9, 1]).unwrap();
    drop(one);
    assert!(frame::receive(&two).is_err(), "it ended in the middle");
    assert!(frame::receive(&two).unwrap().is_none(), "it ended");
}

fn text() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[ -~\u{e9}\n\"]{0,12}").unwrap()
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let suspect = proptest::option::of(any::<(u32, Vec<u32>)>().prop_map(|(uid, groups)| Suspect { uid, groups }));
    (proptest::collection::vec(text(), 0..4), suspect).prop_map(|(paths, suspect)| Wanted { paths, suspect })
}

fn programs() -> impl Strategy<Value = Programs> {
    (proptest::collection::vec(text(), 0..4), proptest::option::of(text()))
        .prop_map(|(paths, note)| Programs { paths, note })
}

fn question() -> impl Strategy<Value = Question> {
    let among = prop_oneof![
        any::<u32>().prop_map(Among::User),
        any::<(Vec<u32>, u32)>().prop_map(|(pids, uid)| Among::Listed(pids, uid)),
        any::<u32>().prop_map(Among::One),
        Just(Among::Everyone),
    ];
    prop_oneof![
        (
            any::<u32>(),
            any::<Option<(u32, u64)>>(),
            proptest::option::of(wanted())
        )
            .prop_map(|(pid, socket, wanted)| Question::Glance(Look { pid, socket, wanted })),
        (any::<(u64, u64)>(), wanted()).prop_map(|(file, wanted)| Question::Programs(Candidates { file, wanted })),
        any::<(u32, bool)>().prop_map(|(pid, read)| Question::Digest { pid, read }),
        (among, any::<Vec<u64>>(), any::<bool>()).prop_map(|(among, inodes, sweep)| Question::Holders {
            among,
            inodes,
            sweep
        }),
        any::<(u32, u32, u64)>().prop_map(|(pid, fd, inode)| Question::Holds { pid, fd, inode }),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let refused = prop_oneof![
        any::<u32>().prop_map(Refused::Exited),
        Just(Refused::NotVisible),
        text().prop_map(Refused::Bound),
        (text(), any::<i32>()).prop_map(|(what, errno)| Refused::Kernel { what, errno }),
    ];
    let seen = (any::<Option<(u64, u64)>>(), proptest::option::of(text())).prop_map(|(file, path)| Seen { file, path });
    prop_oneof![
        (seen, any::<bool>(), proptest::option::of(programs())).prop_map(|(program, holds, programs)| {
            Answer::Glance(Glimpse {
                program,
                holds,
                programs,
            })
        }),
        programs().prop_map(Answer::Programs),
        proptest::option::of(text()).prop_map(Answer::Digest),
        any::<Vec<(u64, u32, u32)>>().prop_map(Answer::Holders),
        any::<bool>().prop_map(Answer::Holds),
        refused.prop_map(Answer::Refused),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(question in question(), answer in answer()) {
        let body = serde_json::to_vec(&question).unwrap();
        let bytes = frame::encode(&body).unwrap();
        prop_assert_eq!(frame::body(&bytes).unwrap(), Some(body.as_slice()));
        for cut in 0..bytes.len() {
            prop_assert_eq!(frame::body(&bytes[..cut]).unwrap(), None);
        }
        prop_assert_eq!(serde_json::from_slice::<Question>(&body).unwrap(), question);
        let body = serde_json::to_vec(&answer).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Answer>(&body).unwrap(), answer);
        prop_assert!(reads_back(&body));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _refused = frame::body(&bytes);
        prop_assert!(reads_back(&bytes));
    }
}

#[tokio::test]
async fn the_end_of_the_helper_is_noticed_and_its_life_is_not() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let helper = Helper::new(ours, None).unwrap();
    let mut gone = Box::pin(helper.gone());
    assert!(futures_poll(&mut gone).await, "it begins to watch");
    let (_, channel) = frame::receive(&theirs).unwrap().unwrap();
    assert!(futures_poll(&mut gone).await, "it lives");
    drop((theirs, channel));
    gone.await;
}

/// Whether a future is still pending.
async fn futures_poll(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())).await
}
