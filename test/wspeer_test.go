package test

import (
	"context"
	"encoding/json"

	"github.com/coder/websocket"

	"github.com/twinrail/twinrail"
)

// wsPeer is one connection of the WS rail, spoken by hand.
type wsPeer struct{ *websocket.Conn }

// dialWS opens a connection, which the caller closes.
func dialWS(ctx context.Context, addr, token string) (wsPeer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, target{addr: addr}.wsURL(), &websocket.DialOptions{
		HTTPHeader: credentials(token), Subprotocols: []string{twinrail.Subprotocol},
	})
	if err != nil {
		return wsPeer{}, err
	}
	conn.SetReadLimit(1 << 20)
	return wsPeer{conn}, nil
}

func (p wsPeer) send(ctx context.Context, frame twinrail.ClientFrame) error {
	text, err := json.Marshal(frame)
	if err != nil {
		return err
	}
	return p.Write(ctx, websocket.MessageText, text)
}

// receive returns the next frame that is not a ping, which it answers.
func (p wsPeer) receive(ctx context.Context) (frame twinrail.ServerFrame, err error) {
	for {
		_, text, err := p.Read(ctx)
		if err != nil {
			return frame, err
		}
		frame = twinrail.ServerFrame{}
		if err := json.Unmarshal(text, &frame); err != nil {
			return frame, err
		}
		if frame.Op != twinrail.OpPing {
			return frame, nil
		}
		if err := p.send(ctx, twinrail.ClientFrame{Op: twinrail.OpPong}); err != nil {
			return frame, err
		}
	}
}
