//! Log lines on their way out. Whoever logs never waits: a thread of its own writes, and what it cannot keep up with, or
//! cannot write because nobody reads any more, is lost and counted.
//!
//! A log that blocked would stop the process where its reader stops: a pipe to a collector that hangs is full after 64 KiB.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait. More than a busy second writes.
const MOST: usize = 1_024;
/// Longest line; the rest of a longer one is cut off.
const LONGEST: usize = 16 * 1_024;

/// Where lines are put. Clones put them into the same queue.
#[derive(Clone)]
pub struct Lines {
    queue: SyncSender<Vec<u8>>,
    /// Lines that are neither written nor lost yet.
    waiting: Arc<AtomicU64>,
    lost: Counter,
}

impl Lines {
    /// Starts the thread that writes to `sink`; `lost` counts what is not written.
    pub fn to(sink: impl Write + Send + 'static, lost: Counter) -> io::Result<Self> {
        let (queue, lines) = sync_channel(MOST);
        let waiting = Arc::new(AtomicU64::new(0));
        let (left, gone) = (waiting.clone(), lost.clone());
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&lines, sink, &left, &gone))?;
        Ok(Self { queue, waiting, lost })
    }

    /// Puts one line, with its newline, into the queue.
    pub fn put(&self, line: &[u8]) {
        let line = match line.get(..LONGEST) {
            Some(begin) => [begin, b"...\n"].concat(),
            None => line.to_vec(),
        };
        self.waiting.fetch_add(1, Ordering::AcqRel);
        if self.queue.try_send(line).is_err() {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.lost.inc();
        }
    }

    /// Waits until what was put is written, for `patience` at most.
    pub fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.waiting.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn write_all(lines: &Receiver<Vec<u8>>, mut sink: impl Write, waiting: &AtomicU64, lost: &Counter) {
    for line in lines {
        if sink.write_all(&line).and_then(|()| sink.flush()).is_err() {
            lost.inc();
        }
        waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// For one event: it is written in one piece.
pub struct Line<'a>(&'a Lines);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    /// A pipe whose reader has to be asked for each line.
    struct Slow(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_hangs_costs_lines_and_never_time() {
        let (go, gate) = channel();
        let (sink, read) = channel();
        let lost = Counter::default();
        let lines = Lines::to(Slow(gate, sink), lost.clone()).expect("a thread");
        let asked = Instant::now();
        for number in 0..MOST + 500 {
            lines.put(format!("{number}\n").as_bytes());
        }
        // One more than fits may be in the writer's hands.
        assert!((499..=500).contains(&lost.get()), "{}", lost.get());
        lines.flush(Duration::from_millis(50));
        assert!(asked.elapsed() < Duration::from_secs(30));
        // It goes on where it stopped.
        for number in 0..10 {
            go.send(()).expect("it waits");
            assert_eq!(read.recv().expect("a line"), format!("{number}\n").into_bytes());
        }
        // The reader is gone: what is left is lost, and counted.
        drop(go);
        lines.flush(Duration::from_secs(30));
        assert_eq!(lost.get() + 10, u64::try_from(MOST).expect("small") + 500);
    }

    #[test]
    fn a_line_has_an_end() {
        let (go, gate) = channel();
        let (sink, read) = channel();
        let lines = Lines::to(Slow(gate, sink), Counter::default()).expect("a thread");
        lines.put(&vec![b'x'; 1 << 20]);
        go.send(()).expect("it waits");
        let line = read.recv().expect("a line");
        assert!(line.len() < LONGEST + 10 && line.ends_with(b"...\n"));
    }
}
