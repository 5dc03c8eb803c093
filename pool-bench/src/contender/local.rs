//! A contender that runs in this program.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;

use super::runner::{check_square, execute};
use super::{Contender, Role, Runner, Unsupported};
use crate::job::{Job, Measured};
use crate::spin::Pace;

type Build<R> = Box<dyn Fn(usize) -> Result<R>>;

/// A [`Runner`] with a name, which is built when it is first needed.
pub struct Local<R> {
    name: &'static str,
    role: Role,
    pace: Pace,
    workers: usize,
    is_of_fixed_size: bool,
    build: Build<R>,
    runner: Option<R>,
}

impl<R: Runner> Local<R> {
    /// `build` is told how many workers to have.
    pub fn new(
        name: &'static str,
        role: Role,
        pace: Pace,
        workers: usize,
        build: impl Fn(usize) -> Result<R> + 'static,
    ) -> Self {
        Self {
            name,
            role,
            pace,
            workers,
            is_of_fixed_size: false,
            build: Box::new(build),
            runner: None,
        }
    }

    /// The same, for which the number of workers has no meaning.
    #[cfg(feature = "cluster")]
    #[must_use]
    pub fn of_fixed_size(mut self) -> Self {
        self.is_of_fixed_size = true;
        self
    }

    fn runner(&mut self) -> Result<&R> {
        if self.runner.is_none() {
            self.runner = Some((self.build)(self.workers)?);
        }
        Ok(self.runner.as_ref().expect("it was just built"))
    }

    fn start(&self, workers: u64, resident: u64) -> Result<Measured> {
        // Touched page by page, or the kernel would not give it to us.
        let memory = vec![1_u8; resident as usize];
        black_box(&memory);
        let start = Instant::now();
        let runner = (self.build)(workers as usize)?;
        let result = runner.apply(3)?;
        let value = start.elapsed().as_secs_f64();
        check_square(3, result)?;
        drop(runner);
        drop(black_box(memory));
        Ok(Measured { value, n: 1 })
    }
}

impl<R: Runner> Contender for Local<R> {
    fn name(&self) -> &str {
        self.name
    }

    fn role(&self) -> Role {
        self.role
    }

    fn run(&mut self, job: Job) -> Result<Option<Measured>> {
        let measured = match job {
            // Nobody is started by a loop.
            Job::Start { .. } | Job::Workers { .. } if self.role == Role::Alone => return Ok(None),
            Job::Start { workers, resident } => self.start(workers, resident),
            Job::Workers { .. } if self.is_of_fixed_size => return Ok(None),
            Job::Workers { workers } => {
                self.runner = None;
                self.workers = workers as usize;
                return Ok(Some(Measured { value: 0.0, n: 1 }));
            }
            _ => {
                let pace = self.pace;
                execute(self.runner()?, job, pace)
            }
        };
        match measured {
            Ok(measured) => Ok(Some(measured)),
            Err(error) if error.is::<Unsupported>() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
