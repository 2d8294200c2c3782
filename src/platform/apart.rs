//! Work on a thread of its own, which gives way to those that answer.
//!
//! A task of the runtime that answers holds one of its threads for as long as it computes, and whoever asks waits behind it. A
//! thread is interrupted; and as it runs at a lower priority, those that answer run first wherever both want the same core.

use std::io;

use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

/// How nice the thread is: where threads that answer leave no core idle, it gets a tenth of one.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Runs `work` on a thread of this name, with a runtime of its own. What is returned is cancelled when it has ended, also
/// by a panic.
pub fn spawn(name: &str, work: impl Future<Output = ()> + Send + 'static) -> io::Result<CancellationToken> {
    let ended = CancellationToken::new();
    let end = ended.clone().drop_guard();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _end = end;
        give_way();
        runtime.block_on(work);
    })?;
    Ok(ended)
}

/// On Linux the priority is the thread's; elsewhere it would be that of the whole process.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the priority stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_end_is_told_and_so_is_a_panic() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let ended = spawn("apart", async move {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            let nice = std::fs::read_to_string("/proc/thread-self/stat").ok();
            let _ = tell.send((std::thread::current().name().map(str::to_owned), nice));
        })
        .unwrap();
        let (name, stat) = told.await.unwrap();
        assert_eq!(name.as_deref(), Some("apart"));
        // proc_pid_stat(5): field 19, the 17th after the name.
        let nice = stat.as_deref().and_then(|stat| stat.rsplit(')').next()?.split_whitespace().nth(16));
        #[cfg(target_os = "linux")]
        assert_eq!(nice, Some("10"));
        ended.cancelled().await;
        let broken = spawn("broken", async { panic!("as intended") }).unwrap();
        broken.cancelled().await;
    }
}
