package client

import (
	"context"

	"github.com/twinrail/twinrail"
)

// begin asks for the subscription: by resuming the session of the connection
// before, where that left a token, and else by a join. A token is sent again
// where its resume was not answered; the server knows whether it was used.
func (w *wsConn) begin(ctx context.Context) error {
	if w.f.resumeToken == "" {
		return w.join(ctx)
	}
	w.resuming = true
	frame := &twinrail.ClientFrame{Op: twinrail.OpResume, Ref: resumeRef, ResumeToken: w.f.resumeToken}
	if w.f.subscribed && w.f.cursor != "" {
		frame.Cursors = map[string]string{subName: w.f.cursor}
	}
	return w.write(ctx, frame)
}

// joinAnew goes on without the session. The cursor is the follower's own, so
// that no event is lost by it.
func (w *wsConn) joinAnew(ctx context.Context) error {
	w.f.resumeToken, w.resuming = "", false
	return w.join(ctx)
}

// refusesResume reports whether the code, as the answer to a resume, says that
// this token will never be taken: a join is not concerned.
func refusesResume(code twinrail.Code) bool {
	switch code {
	case twinrail.CodeResumeInvalid, twinrail.CodeResumeUsed, twinrail.CodeResumeExpired,
		twinrail.CodeBadFrame, twinrail.CodeBadRequest:
		return true
	}
	return false
}

// resumed takes the session over, and the subscription where the session has it.
func (w *wsConn) resumed(ctx context.Context, frame *twinrail.ServerFrame) error {
	if !w.resuming {
		return nil
	}
	w.resuming = false
	w.f.resumeToken, w.f.subscribed, w.sessionID = frame.ResumeToken, false, frame.SessionID
	for i := range frame.Subs {
		sub := &frame.Subs[i]
		if sub.Sub != subName {
			continue
		}
		if sub.Code != "" {
			info := sub.Code.Info()
			return &ResponseError{
				Action: actionOf(info.Retry, info.Status), RequestID: frame.RequestID,
				Err: &twinrail.Error{Code: sub.Code, Detail: sub.Detail},
			}
		}
		if err := w.sayState(ctx, sub.Members); err != nil {
			return err
		}
		w.f.subscribed = true
		return w.open(sub)
	}
	return w.join(ctx) // the cut came between the welcome and the join
}

// sayState says the follower's state again where the server may have lost it: it
// keeps sessions over a restart, but not what their members said.
func (w *wsConn) sayState(ctx context.Context, members []twinrail.PresenceMember) error {
	if w.f.options.Presence == nil {
		return nil
	}
	for _, m := range members {
		if m.SessionID == w.sessionID && m.State != nil {
			return nil
		}
	}
	return w.write(ctx, &twinrail.ClientFrame{Op: twinrail.OpPresence, Ref: presenceRef, Sub: subName, State: w.f.options.Presence})
}
