//! The helper's side: answers, one thread for each channel.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::sight::{Glance, Sight};
use super::frame;
use super::wire::{Answer, Question, flat};

/// How many channels there may be: those of the proxy, and as many that it gave up while an answer was being found.
const CHANNELS_MAX: usize = 2 * (super::FAST_MAX + super::SLOW_MAX);

/// Takes channels until the other end of `control` closes.
pub(super) fn serve(control: &UnixStream, sight: &Arc<Sight>) -> io::Result<()> {
    let open = Arc::new(AtomicUsize::new(0));
    while let Some((_, fd)) = frame::receive(control)? {
        let channel = UnixStream::from(fd.ok_or(io::ErrorKind::InvalidData)?);
        let (sight, open) = (Arc::clone(sight), Arc::clone(&open));
        if open.fetch_add(1, Ordering::Relaxed) >= CHANNELS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let answering = move || {
            // Whoever asked sees the channel's end, and that is all there is to say.
            let _ended = answer_all(&channel, &sight);
            open.fetch_sub(1, Ordering::Relaxed);
        };
        drop(
            std::thread::Builder::new()
                .name("answers".to_owned())
                .spawn(answering)?,
        );
    }
    Ok(())
}

fn answer_all(channel: &UnixStream, sight: &Sight) -> io::Result<()> {
    while let Some((body, None)) = frame::receive(channel)? {
        let question = serde_json::from_slice(&body)?;
        let (answer, fd) = answer(question, sight);
        frame::send(channel, &serde_json::to_vec(&answer)?, fd.as_ref().map(OwnedFd::as_fd))?;
    }
    Ok(())
}

fn answer(question: Question, sight: &Sight) -> (Answer, Option<OwnedFd>) {
    let answered = match question {
        Question::Glance(look) => match sight.glance(look) {
            Ok(Glance { map, glimpse }) => return (Answer::Glance(glimpse), Some(map)),
            Err(why) => Err(why),
        },
        Question::Programs(candidates) => Ok(Answer::Programs(Sight::programs(&candidates))),
        Question::Digest { pid, read } => sight.digest(pid, read).map(Answer::Digest),
        Question::Holders { among, inodes, sweep } => {
            let inodes: BTreeSet<u64> = inodes.into_iter().collect();
            let found = sight.holders(&among, &inodes, sweep);
            found.map(|found| Answer::Holders(found.iter().map(flat).collect()))
        }
        Question::Holds { pid, fd, inode } => Ok(Answer::Holds(sight.holds(pid, fd, inode))),
    };
    (answered.unwrap_or_else(|why| Answer::Refused(why.into())), None)
}
