//! What a scan of JSON keeps of the containers that are open: a bit each, so that hostile
//! nesting costs no stack and next to no memory.

use crate::limits::JSON_DEPTH_MAX;

// One bit a level.
const _: () = assert!(JSON_DEPTH_MAX <= u64::BITS as usize);

/// The containers that are open where a scan has come to: of each whether it is an object.
pub(super) trait Open {
    /// Another one begins within the innermost; `false` where it would be too deep.
    fn push(&mut self, is_object: bool) -> bool;
    /// The innermost ends.
    fn pop(&mut self);
    fn innermost_is_object(&self) -> bool;
    fn is_empty(&self) -> bool;
}

/// As many as a request may have: a bit each, the innermost is the lowest.
pub(super) struct FewOpen {
    objects: u64,
    open: usize,
    most: usize,
}

impl FewOpen {
    pub(super) fn at_most(most: usize) -> FewOpen {
        FewOpen { objects: 0, open: 0, most }
    }
}

impl Open for FewOpen {
    #[inline(always)]
    fn push(&mut self, is_object: bool) -> bool {
        if self.open >= self.most {
            return false;
        }
        self.objects = self.objects << 1 | u64::from(is_object);
        self.open += 1;
        true
    }

    #[inline(always)]
    fn pop(&mut self) {
        self.objects >>= 1;
        self.open -= 1;
    }

    #[inline(always)]
    fn innermost_is_object(&self) -> bool {
        self.objects & 1 == 1
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.open == 0
    }
}

/// Any number of them, in an eighth of the bytes that opened them.
#[derive(Default)]
pub(super) struct ManyOpen {
    objects: Vec<u64>,
    open: usize,
}

impl Open for ManyOpen {
    fn push(&mut self, is_object: bool) -> bool {
        let (word, bit) = (self.open / 64, self.open % 64);
        if word == self.objects.len() {
            self.objects.push(0);
        }
        self.objects[word] = self.objects[word] & !(1 << bit) | u64::from(is_object) << bit;
        self.open += 1;
        true
    }

    fn pop(&mut self) {
        self.open -= 1;
    }

    fn innermost_is_object(&self) -> bool {
        let last = self.open - 1;
        self.objects[last / 64] >> (last % 64) & 1 == 1
    }

    fn is_empty(&self) -> bool {
        self.open == 0
    }
}
