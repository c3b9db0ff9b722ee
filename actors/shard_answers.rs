//! How a shard answers: lines as they will be sent, one message to each
//! connection that has something to hear.

use datastore::engine::Answer;
use datastore::messaging::reply;

use crate::connection::ConnectionMessage;
use crate::shard::{Kind, Shard, Token};
use crate::shard_messages::{Replies, ReplyItem};

/// An answer with a value or vector above this is passed by reference, so that
/// replies that nobody reads don't fill the memory.
const LARGE_BYTES: usize = 4 * 1024;
impl Shard {
    pub(crate) fn answer(&mut self, token: Token, answer: Answer) {
        let sequence = token.sequence;
        let item = match answer {
            Answer::Entry(Some(entry)) if entry.memory_bytes() > LARGE_BYTES => {
                ReplyItem::Large { sequence, entry, vector: token.kind == Kind::Vector }
            }
            Answer::Entries(entries) => ReplyItem::Entries { sequence, entries },
            Answer::Part { existed, version } => {
                ReplyItem::Part { sequence, outcome: Ok((existed, Some(version))) }
            }
            Answer::Refused(error) if matches!(token.kind, Kind::Part | Kind::Awaited) => {
                ReplyItem::Part { sequence, outcome: Err(error) }
            }
            Answer::Written(version) if token.kind == Kind::Awaited => {
                ReplyItem::Part { sequence, outcome: Ok((1, Some(version))) }
            }
            Answer::Deleted(existed, version) if token.kind == Kind::Awaited => {
                ReplyItem::Part { sequence, outcome: Ok((usize::from(existed), Some(version))) }
            }
            answer => {
                let batch = &mut self.batches[token.batch as usize];
                let id = token.id.of(&batch.arena);
                match answer {
                    Answer::Entry(entry) if token.kind == Kind::Vector => {
                        reply::get_vector(&mut batch.lines, id, entry.as_ref());
                    }
                    Answer::Entry(entry) => reply::get(&mut batch.lines, id, entry.as_ref()),
                    Answer::Written(version) => reply::version(&mut batch.lines, id, version),
                    Answer::Deleted(existed, _) => reply::deleted(&mut batch.lines, id, existed),
                    Answer::Refused(error) => reply::error(&mut batch.lines, id, &error),
                    Answer::Entries(_) | Answer::Part { .. } => unreachable!("answered above"),
                }
                ReplyItem::Line { sequence, end: batch.lines.len() }
            }
        };
        self.answer_item(token, item);
    }

    pub(crate) fn answer_item(&mut self, token: Token, item: ReplyItem) {
        let batch = &mut self.batches[token.batch as usize];
        batch.items.push(item);
        batch.unanswered -= 1;
        if !batch.touched {
            batch.touched = true;
            self.touched.push(token.batch);
        }
    }

    /// One message per batch that has answers; a batch without open requests is forgotten.
    pub(crate) fn send_answers(&mut self) {
        for number in self.touched.drain(..) {
            let batch = &mut self.batches[number as usize];
            batch.touched = false;
            let replies = Replies {
                shard: self.number,
                lines: std::mem::take(&mut batch.lines),
                items: std::mem::take(&mut batch.items),
            };
            batch.reply_to.send(ConnectionMessage::Replies(replies));
            if batch.unanswered == 0 {
                self.batches.remove(number as usize);
            }
        }
    }
}
