//! Clients' requests about executions.

use boxlite_proto::{Op, ShimError, ShimReply, ShimRequest, ToGuest};

use super::super::main_process::ClientId;
use super::super::{Driver, DriverPhase};
use super::HoldRefusal;
use super::held::SeatRequest;

impl Driver {
    /// Carries out a request of those that came with [`boxlite_proto::EXECUTIONS`].
    pub(in super::super) fn execution_request(&mut self, id: ClientId, request: ShimRequest) {
        match self.carried_out(id, request) {
            Ok(Some(reply)) => self.reply(id, &reply),
            Ok(None) => {}
            Err(refusal) => {
                let (kind, message) = match refusal {
                    HoldRefusal::Unknown => {
                        (ShimError::Unknown, "this box holds no such execution".to_owned())
                    }
                    HoldRefusal::Conflict(message) => (ShimError::Conflict, message),
                    HoldRefusal::Invalid(message) => (ShimError::Invalid, message.to_owned()),
                    HoldRefusal::TooMany(message) => (ShimError::TooMany, message),
                };
                self.reply(id, &ShimReply::Error { kind, message });
            }
        }
    }

    fn carried_out(
        &mut self,
        client: ClientId,
        request: ShimRequest,
    ) -> Result<Option<ShimReply>, HoldRefusal> {
        let Some(sink) = self.clients.get(&client).map(|client| client.sink.clone()) else { return Ok(None) };
        let others = self.ops.under_way();
        let (held, guest) = (&mut self.executions, &self.guest);
        match request {
            ShimRequest::Begin { .. } if matches!(self.phase, DriverPhase::Stopping(_)) => {
                return Ok(Some(ShimReply::Error {
                    kind: ShimError::NotRunning,
                    message: "the box is stopping".into(),
                }));
            }
            ShimRequest::Begin { execution, spec, terms } => {
                held.begin((client, &sink), &execution, spec, terms, guest, others)?;
                return Ok(None);
            }
            ShimRequest::Inspect { execution } => {
                return Ok(Some(ShimReply::Execution(held.get(&execution)?.state())));
            }
            ShimRequest::ListExecutions => return Ok(Some(ShimReply::Executions(held.list()))),
            ShimRequest::AttachExecution { id: channel, execution, from, replace, resumes, stdin } => {
                let request = SeatRequest { client, channel, sink, from, replace, resumes, stdin };
                held.attach(&execution, request, guest)?;
                return Ok(None);
            }
            ShimRequest::Taken { execution, position } => {
                // One that is forgotten needs no acknowledgement.
                if let Ok(held) = held.get(&execution) {
                    held.taken(position, guest);
                }
                return Ok(None);
            }
            ShimRequest::LeaveExecution { execution, broke, returns } => {
                held.leave(client, &execution, broke, returns)?;
            }
            ShimRequest::ReleaseExecution { execution } => held.get(&execution)?.release(guest),
            ShimRequest::SignalExecution { execution, signo } => held.get(&execution)?.signal(signo, guest),
            ShimRequest::EndExecution { execution } => held.get(&execution)?.end_and_hide(guest),
            ShimRequest::ResizeExecution { execution, size } => {
                let id = held.get(&execution)?.channel();
                let _ = guest.control(&ToGuest::Op(Op::Resize { id, size }));
            }
            _ => return Err(HoldRefusal::Invalid("the request is not about an execution")),
        }
        Ok(Some(ShimReply::Done))
    }
}
