//! The mount table of a kqueue that watches it.
//!
//! The kernel makes /proc/self/mountinfo exceptional at every change, once for each open
//! file: whoever polls it first takes that away, be it an epoll that watches ours. So the
//! table is opened twice. One copy stands in the kqueue's epoll for readability, which it
//! always has, by edges: each change is one. The other is asked whether that was a change.
//! What changed is told by comparing the table with the one before.

use super::{AGAIN, Queue, token};
use crate::abi::{VQ_MOUNT, VQ_UNMOUNT};
use crate::errno::Result;
use crate::knote::Slot;
use crate::sys::epoll::{self, Epoll};
use crate::sys::mounts::MountTable;
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

/// What identifies a mount, and its options: remounting changes those alone.
type Table = BTreeMap<String, String>;

/// The table, and the knotes that wait for it to change.
pub(crate) struct Mounts {
    bell: MountTable,
    fact: MountTable,
    last: Table,
    /// It has changed, and could not be read.
    unread: bool,
    knotes: Vec<Slot>,
}

/// Enters a knote. ENOTSUP without /proc; EMFILE, ENFILE, ENOMEM, ENOSPC.
pub(super) fn join(queue: &mut Queue, slot: Slot) -> Result<()> {
    if queue.mounts.is_none() {
        let (bell, fact) = (MountTable::open()?, MountTable::open()?);
        let last = parse(&fact.text()?);
        ring(&queue.epoll, &bell)?;
        queue.mounts = Some(Mounts { bell, fact, last, unread: false, knotes: Vec::new() });
    }
    // What happened before is not for the new one.
    collect(queue);
    if let Some(mounts) = &mut queue.mounts {
        mounts.knotes.push(slot);
    }
    Ok(())
}

/// Takes a knote out.
pub(super) fn leave(queue: &mut Queue, slot: Slot) {
    let Some(mounts) = &mut queue.mounts else { return };
    mounts.knotes.retain(|&knote| knote != slot);
    if mounts.knotes.is_empty() {
        queue.mounts = None;
    }
}

fn ring(epoll: &Epoll, bell: &MountTable) -> Result<()> {
    epoll.add(bell.as_raw_fd(), epoll::IN | epoll::ET, token::MOUNTS)
}

/// Enters the table into a fresh set of a kqueue that has it.
pub(super) fn enter(queue: &Queue, epoll: &Epoll) -> Result<()> {
    queue.mounts.as_ref().map_or(Ok(()), |mounts| ring(epoll, &mounts.bell))
}

/// The table may have changed: notes in each knote's `own` what it asked for.
pub(crate) fn collect(queue: &mut Queue) {
    let Some(mounts) = &mut queue.mounts else { return };
    if !mounts.fact.has_changed() && !mounts.unread {
        return;
    }
    let text = read(&mounts.fact);
    mounts.unread = text.is_err();
    let Ok(now) = text.map(|text| parse(&text)) else {
        for slot in mounts.knotes.clone() {
            let _ = queue.look_again(slot, AGAIN);
        }
        return;
    };
    let hints = difference(&mounts.last, &now);
    mounts.last = now;
    for &slot in &mounts.knotes {
        let knote = &mut queue.knotes[slot];
        knote.own |= hints & knote.fflags;
        queue.knotes.activate(slot);
    }
}

/// The table as it is now. A change while it is read would be told of once more, when there is
/// no difference to be found.
fn read(table: &MountTable) -> Result<String> {
    let mut text = table.text();
    for _ in 0..READS {
        if text.is_err() || !table.has_changed() {
            break;
        }
        text = table.text();
    }
    text
}

/// How often the table is read anew at most.
const READS: u32 = 16;

fn difference(was: &Table, now: &Table) -> u32 {
    let came = now.keys().any(|mount| !was.contains_key(mount));
    let went = was.keys().any(|mount| !now.contains_key(mount));
    if !came && !went && was == now {
        // One was mounted and one unmounted, and the number of the one used for the other.
        return VQ_MOUNT | VQ_UNMOUNT;
    }
    (if came { VQ_MOUNT } else { 0 }) | (if went { VQ_UNMOUNT } else { 0 })
}

/// Fields of a line: number, parent, device, root, place, options, any tags, "-", type,
/// source, options.
fn parse(text: &str) -> Table {
    let entry = |line: &str| {
        let (head, tail) = line.split_once(" - ").unwrap_or((line, ""));
        let mut head = head.splitn(6, ' ');
        let mut mount: Vec<&str> = head.by_ref().take(5).collect();
        let mut tail = tail.splitn(3, ' ');
        mount.extend(tail.by_ref().take(2));
        let options: Vec<&str> = head.chain(tail).collect();
        (mount.join(" "), options.join(" "))
    };
    text.lines().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n";
    const TMP: &str = "30 22 0:25 / /tmp rw shared:5 - tmpfs tmpfs rw,size=4k\n";

    fn between(was: &[&str], now: &[&str]) -> u32 {
        difference(&parse(&was.concat()), &parse(&now.concat()))
    }

    #[test]
    fn a_line_more_is_a_mount_and_one_less_an_unmount() {
        assert_eq!(between(&[ROOT], &[ROOT, TMP]), VQ_MOUNT);
        assert_eq!(between(&[ROOT, TMP], &[ROOT]), VQ_UNMOUNT);
    }

    #[test]
    fn another_mount_under_the_same_number_is_both() {
        let other = TMP.replace("/tmp", "/mnt");
        assert_eq!(between(&[ROOT, TMP], &[ROOT, &other]), VQ_MOUNT | VQ_UNMOUNT);
    }

    #[test]
    fn a_change_that_left_no_difference_is_both() {
        assert_eq!(between(&[ROOT], &[ROOT]), VQ_MOUNT | VQ_UNMOUNT);
    }

    #[test]
    fn a_remount_is_neither() {
        assert_eq!(between(&[ROOT, TMP], &[ROOT, &TMP.replace("rw shared", "ro shared")]), 0);
        assert_eq!(between(&[ROOT, TMP], &[ROOT, &TMP.replace("4k", "8k")]), 0);
    }
}
