//! Jobs of a capture, and the threads that do them.

use std::sync::atomic::Ordering;

use crossbeam_channel::Receiver;

use crate::create::extent::{Extent, ExtentDone};
use crate::create::small::{Outcome, SmallFile};
use crate::create::worker::{Shared, Worker};
use crate::error::Error;
use crate::storing::promise::{Keeper, broken};

/// What a worker can be asked for.
pub(super) enum Job {
    /// Small files, and everything that has no content.
    Batch(Vec<SmallFile>, Keeper<Vec<Outcome>>),
    /// A part of a large file.
    Extent(Extent, Keeper<ExtentDone>),
}

/// Works until no more jobs come.
pub(super) fn run<'s>(shared: &'s Shared<'s>, jobs: &Receiver<Job>) {
    let mut worker = match Worker::new(shared) {
        Ok(worker) => worker,
        Err(error) => {
            // One of the promises brings the cause; the others are broken, and that is said after it.
            if let Ok(job) = jobs.recv() {
                refuse(job, error.into());
            }
            return;
        }
    };
    for job in jobs {
        let stop = match shared.context.check_interrupt() {
            Err(error) => Some(error),
            Ok(()) if shared.abandoned.load(Ordering::Relaxed) => Some(broken()),
            Ok(()) => None,
        };
        match (stop, job) {
            (Some(error), job) => refuse(job, error),
            (None, Job::Batch(files, keeper)) => keeper.keep(worker.batch(files)),
            (None, Job::Extent(extent, keeper)) => keeper.keep(worker.extent(&extent)),
        }
    }
}

fn refuse(job: Job, error: Error) {
    match job {
        Job::Batch(_, keeper) => keeper.keep(Err(error)),
        Job::Extent(_, keeper) => keeper.keep(Err(error)),
    }
}
