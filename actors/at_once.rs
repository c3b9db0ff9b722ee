//! Pieces of work side by side on threads that live no longer than the work.

use std::sync::Mutex;

use datastore::indexing::Piece;

use crate::node::lock;

/// Does all pieces on so many threads, this one among them. Each takes the next piece when it
/// has done one. A thread that the system doesn't give is done without.
pub(crate) fn run_at_once(threads: usize, pieces: Vec<Piece<'_>>) {
    let helpers = threads.min(pieces.len()).saturating_sub(1);
    let pieces = Mutex::new(pieces.into_iter());
    let next = || lock(&pieces).next();
    let work = || {
        while let Some(piece) = next() {
            piece();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            let thread = std::thread::Builder::new().name("indexing".into());
            if thread.spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}

/// Pieces that put what `function` gives for each of the items into `given`, in the items' order.
pub(crate) fn pieces_of<'given, Item: Copy + Send + 'given, Given: Send>(
    items: &[Item],
    given: &'given mut Vec<Option<Given>>,
    function: impl Fn(Item) -> Given + Copy + Send + 'given,
) -> Vec<Piece<'given>> {
    given.clear();
    given.resize_with(items.len(), || None);
    let mut pieces: Vec<Piece<'given>> = Vec::with_capacity(items.len());
    for (&item, place) in items.iter().zip(given) {
        pieces.push(Box::new(move || *place = Some(function(item))));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once_and_keeps_its_place() {
        let items: Vec<u32> = (0..1_000).collect();
        for threads in [0, 1, 2, 7] {
            let mut doubled = Vec::new();
            run_at_once(threads, pieces_of(&items, &mut doubled, |item| item * 2));
            assert_eq!(doubled, items.iter().map(|item| Some(item * 2)).collect::<Vec<_>>());
            run_at_once(threads, pieces_of(&items[..0], &mut doubled, |item| item));
            assert!(doubled.is_empty());
        }
    }
}
