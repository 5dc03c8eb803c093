//! The values that the bytes of shared memory were decoded to, and which are being decoded.

use std::any::Any;
use std::cell::RefCell;
use std::sync::OnceLock;

use super::memory::SharedMemory;
use crate::codec::CodecError;
use crate::panic::catch::catch_and_discard;

/// The values that some bytes were decoded to: one for each type that a handle has had in this
/// process, which is more than one only if somebody lied. A value stays where it is as long as
/// this.
#[derive(Default)]
pub(super) struct Decoded(OnceLock<Box<DecodedValue>>);

struct DecodedValue {
    value: Box<dyn Any + Send + Sync>,
    /// How many values stand inside each other in it.
    height: u32,
    others: Decoded,
}

impl Decoded {
    /// The value of this type, and how many values stand inside each other in it.
    #[inline]
    pub(super) fn get<T: 'static>(&self) -> Option<(&T, u32)> {
        let mut next = self;
        while let Some(entry) = next.0.get() {
            if let Some(value) = entry.value.downcast_ref() {
                return Some((value, entry.height));
            }
            next = &entry.others;
        }
        None
    }

    /// Adds a value, unless another thread has added one of its type.
    pub(super) fn add<T: Any + Send + Sync>(&self, value: T, height: u32) -> (&T, u32) {
        let mut entry = Box::new(DecodedValue {
            value: Box::new(value),
            height,
            others: Self::default(),
        });
        let mut next = self;
        loop {
            let refused = next.0.set(entry);
            let there = next.0.get().expect("it was set, now or before");
            if let Some(value) = there.value.downcast_ref() {
                if let Err(entry) = refused {
                    // The user's destructor.
                    catch_and_discard(|| drop(entry));
                }
                return (value, there.height);
            }
            let Err(back) = refused else {
                unreachable!("what was set is of this type");
            };
            entry = back;
            next = &there.others;
        }
    }

    /// How many values stand inside each other, at most.
    pub(super) fn height(&self) -> u32 {
        let mut height = 0;
        let mut next = self;
        while let Some(entry) = next.0.get() {
            height = height.max(entry.height);
            next = &entry.others;
        }
        height
    }

    /// Takes the values out, to be dropped.
    pub(super) fn take(&mut self) -> Option<impl Sized + use<>> {
        self.0.take()
    }
}

thread_local! {
    /// The memory whose bytes are being decoded on this thread, each because of a handle in the one
    /// before it.
    static DECODING: RefCell<Vec<*const SharedMemory>> = const { RefCell::new(Vec::new()) };
}

/// Decodes the bytes of this memory. Nothing is locked meanwhile, for this runs the user's code;
/// threads that do so at the same time do it twice.
///
/// # Errors
/// Those of `decode`; or this memory is being decoded on this thread, so that there is a handle of
/// it in itself.
pub(super) fn decoding<R>(
    memory: &SharedMemory,
    decode: impl FnOnce() -> Result<R, CodecError>,
) -> Result<R, CodecError> {
    struct Leave;

    impl Drop for Leave {
        fn drop(&mut self) {
            DECODING.with_borrow_mut(|all| all.pop());
        }
    }

    let is_inside = DECODING.with_borrow_mut(|all| {
        let is_inside = all.iter().any(|other| std::ptr::eq(*other, memory));
        if !is_inside {
            all.push(memory);
        }
        is_inside
    });
    if is_inside {
        return Err(CodecError::new(
            "the broadcast has a handle of itself in it, by way of others or not",
        ));
    }
    let _leave = Leave;
    decode()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_a_value_of_its_own() {
        let mut decoded = Decoded::default();
        assert!(decoded.get::<u64>().is_none());
        let at = std::ptr::from_ref(decoded.add(7_u64, 1).0);
        assert_eq!(decoded.add("seven".to_owned(), 3), (&"seven".to_owned(), 3));
        assert_eq!(decoded.add([7_u8; 4], 2), (&[7; 4], 2));
        assert_eq!(decoded.add(8_u64, 9), (&7, 1), "the first stays");
        assert!(std::ptr::eq(decoded.get::<u64>().expect("a value").0, at));
        assert_eq!(decoded.get::<[u8; 4]>(), Some((&[7; 4], 2)));
        assert!(decoded.get::<u32>().is_none());
        assert_eq!(decoded.height(), 3);
        assert!(decoded.take().is_some());
        assert!(decoded.get::<u64>().is_none());
    }

    #[test]
    fn threads_that_add_at_once_see_the_same() {
        for round in 0..200 {
            let decoded = Decoded::default();
            let values: Vec<(usize, usize)> = std::thread::scope(|scope| {
                let add = |n: u64| {
                    let decoded = &decoded;
                    move || {
                        let number = std::ptr::from_ref(decoded.add(n, 0).0).addr();
                        let text = std::ptr::from_ref(decoded.add(n.to_string(), 0).0).addr();
                        (number, text)
                    }
                };
                let threads: Vec<_> = (0..4).map(|n| scope.spawn(add(n))).collect();
                threads
                    .into_iter()
                    .map(|it| it.join().expect("no panic"))
                    .collect()
            });
            assert!(values.iter().all(|it| *it == values[0]), "round {round}");
        }
    }
}
