//! Sides in processes of their own.
//!
//! Each side of a row lives in a child of the bench and works when it is asked to. So it
//! starts from a fresh heap, a peer that hangs or crashes takes nobody with it, and what a
//! library brings into its process (a thread, a signalfd) is not charged to raw: any
//! signalfd of a process makes every signal of that process dearer, for one. The parent
//! calls no library and has one thread, so its children may do anything.

use crate::api::Outcome;
use crate::sys;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write};

/// What a child does when it is asked: a number in, words out.
pub(crate) type Work = Box<dyn FnMut(usize) -> Outcome<String>>;

/// A child that waits to be asked.
pub(crate) struct Child {
    pid: libc::pid_t,
    to: PipeWriter,
    from: BufReader<PipeReader>,
}

/// No set-up and no turn lasts this long, s.
const HANGS: u32 = 30;

/// Starts a child that sets itself up with `make`.
pub(crate) fn start(make: impl FnOnce() -> Outcome<Work>) -> Outcome<Child> {
    let pipe = || io::pipe().map_err(|why| format!("pipe: {why}"));
    let ((questions, to), (from, answers)) = (pipe()?, pipe()?);
    let pid = sys::fork_doing(|| i32::from(serve(make, &questions, &answers).is_none()));
    drop(answers);
    let mut child = Child { pid, to, from: BufReader::new(from) };
    child.answer().map(|_| child)
}

/// The child: none when the parent does not listen any more.
fn serve(make: impl FnOnce() -> Outcome<Work>, mut questions: &PipeReader, mut answers: &PipeWriter) -> Option<()> {
    let mut tell = |said: Outcome<String>| {
        sys::watchdog(0);
        let line = said.map_or_else(|why| format!("-{why}\n"), |text| format!("+{text}\n"));
        answers.write_all(line.as_bytes()).ok()
    };
    sys::watchdog(HANGS);
    let mut work = match make() {
        Ok(work) => work,
        Err(why) => return tell(Err(why)),
    };
    tell(Ok(String::new()))?;
    let mut question = [0; size_of::<usize>()];
    loop {
        questions.read_exact(&mut question).ok()?;
        match usize::from_ne_bytes(question) {
            0 => return Some(()),
            units => {
                sys::watchdog(HANGS);
                tell(work(units))?;
            }
        }
    }
}

impl Child {
    /// Has the child work; not with 0.
    pub(crate) fn ask(&mut self, units: usize) -> Outcome<String> {
        // A child that has ended says so by its silence.
        let _ = self.to.write_all(&units.to_ne_bytes());
        self.answer()
    }

    fn answer(&mut self) -> Outcome<String> {
        let mut line = String::new();
        // As above.
        let _ = self.from.read_line(&mut line);
        let text = line.trim_end();
        match text.split_at_checked(1) {
            Some(("+", text)) => Ok(text.to_owned()),
            Some((_, why)) => Err(why.to_owned()),
            None => Err(self.fate()),
        }
    }

    /// How a child that says nothing has ended.
    fn fate(&mut self) -> String {
        let status = sys::reap(self.pid);
        self.pid = 0;
        match libc::WTERMSIG(status) {
            libc::SIGALRM => "hangs".to_owned(),
            0 => format!("ended with status {}", libc::WEXITSTATUS(status)),
            signal => format!("killed by signal {signal}"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.pid != 0 {
            // Closing the pipe would not do: children started later hold it as well.
            let _ = self.to.write_all(&0usize.to_ne_bytes());
            sys::reap(self.pid);
        }
    }
}
