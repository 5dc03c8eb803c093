//! Descriptors, of which there are none: these types have no values. So whatever is to be done with
//! one is never done, and needs no code.

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;

/// The number of a descriptor.
pub type RawFd = i32;

/// A descriptor, of which there is none here.
#[derive(Debug)]
pub struct OwnedFd(Infallible);

/// The same, of somebody else.
#[derive(Debug, Clone, Copy)]
pub struct BorrowedFd<'fd>(Infallible, PhantomData<&'fd ()>);

/// What has a descriptor.
pub trait AsFd {
    /// Its descriptor.
    fn as_fd(&self) -> BorrowedFd<'_>;
}

/// What has the number of a descriptor.
pub trait AsRawFd {
    /// The number.
    fn as_raw_fd(&self) -> RawFd;
}

impl OwnedFd {
    /// There is none that could be copied.
    ///
    /// # Errors
    /// Never.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self.0 {}
    }
}

impl BorrowedFd<'_> {
    /// There is none that could be copied.
    ///
    /// # Errors
    /// Never.
    pub fn try_clone_to_owned(&self) -> io::Result<OwnedFd> {
        match self.0 {}
    }

    /// Whatever is asked for: nobody comes here.
    pub(crate) fn never<T>(self) -> T {
        match self.0 {}
    }
}

impl AsFd for OwnedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

impl AsFd for BorrowedFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        *self
    }
}

impl<T: AsFd + ?Sized> AsFd for &T {
    fn as_fd(&self) -> BorrowedFd<'_> {
        T::as_fd(self)
    }
}

impl<T: AsFd + ?Sized> AsFd for std::sync::Arc<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        T::as_fd(self)
    }
}

impl AsRawFd for OwnedFd {
    fn as_raw_fd(&self) -> RawFd {
        match self.0 {}
    }
}

impl AsRawFd for BorrowedFd<'_> {
    fn as_raw_fd(&self) -> RawFd {
        match self.0 {}
    }
}
