package client

import (
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/twinrail/twinrail"
)

// Presence says who is present: in a snapshot the first of those who are, and after
// it, as joined, the others, and what became different. A [Roster] keeps count.
// Marshalled it has the members that are set.
type Presence struct {
	// Members takes the place of all that was known before; nil where this is no
	// snapshot. Where many are present, those who are not in it join right after it.
	Members []twinrail.PresenceMember `json:"members,omitzero"`
	// Leave, Join and Update are changes, to be applied in this order. Those in
	// Leave have no state.
	Leave  []twinrail.PresenceMember `json:"leave,omitempty"`
	Join   []twinrail.PresenceMember `json:"join,omitempty"`
	Update []twinrail.PresenceMember `json:"update,omitempty"`
}

// FollowPresence follows who is present, on the WS rail. Routing names a canvas,
// or else a thread, and the audience keys to hold. Where state is not nil the
// follower is present itself, with that state, any JSON value.
//
// It gives items of KindPresence, a snapshot first, and one again after each
// KindOpen, that is with each connection: no change is missed and none given
// twice. A follower that comes back in time has never left in the eyes of the
// others. The rest is as with [Client.FollowThread].
func (c *Client) FollowPresence(ctx context.Context, routing twinrail.Routing, state json.RawMessage) iter.Seq2[Item, error] {
	o := FollowOptions{Channels: []twinrail.Channel{twinrail.Presence}, Presence: state}
	return c.follow(ctx, routing, o, presenceKind(routing), twinrail.RailWS)
}

// PresenceOptions says which page of those present to read.
type PresenceOptions struct {
	// After is the Next of the page before; "" is for the first.
	After string
	// Limit bounds the members of the page; 0 leaves it to the server.
	Limit int
}

// Presence reads one page of who is present where routing says, as in
// [Client.FollowPresence], in the order in which they came. Where its Next is "",
// it is the last. Whoever is present throughout is on exactly one of the pages.
func (c *Client) Presence(ctx context.Context, routing twinrail.Routing, o PresenceOptions) (twinrail.PresenceResponse, error) {
	query := url.Values{"stream": {presenceKind(routing).String()}}
	if o.After != "" {
		query.Set("after", o.After)
	}
	if o.Limit > 0 {
		query.Set("limit", strconv.Itoa(o.Limit))
	}
	var page twinrail.PresenceResponse
	err := c.call(ctx, http.MethodGet, c.endpoint(twinrail.PathPresence, query), routing, nil, &page)
	return page, err
}

// presenceKind says whose presence is meant where a routing may name a canvas and a
// thread.
func presenceKind(routing twinrail.Routing) twinrail.Kind {
	if routing.CanvasID != "" {
		return twinrail.CanvasStream
	}
	return twinrail.ThreadStream
}

// Roster is who is present, as the items of a follower tell. Its zero value is
// nobody.
type Roster struct {
	members map[memberKey]twinrail.PresenceMember
}

// memberKey is who a member is.
type memberKey struct {
	actor, session string
	address        twinrail.Routing
}

func keyOf(m *twinrail.PresenceMember) memberKey {
	k := memberKey{actor: m.ActorID, session: m.SessionID}
	if m.Routing != nil {
		k.address = *m.Routing
	}
	return k
}

// Apply takes in what an item says.
func (r *Roster) Apply(p *Presence) {
	if p.Members != nil || r.members == nil {
		r.members = map[memberKey]twinrail.PresenceMember{}
	}
	for i := range p.Leave {
		delete(r.members, keyOf(&p.Leave[i]))
	}
	for _, present := range [][]twinrail.PresenceMember{p.Members, p.Join, p.Update} {
		for i := range present {
			r.members[keyOf(&present[i])] = present[i]
		}
	}
}

// Members returns who is present, ordered by actor, session and address.
func (r *Roster) Members() []twinrail.PresenceMember {
	var members []twinrail.PresenceMember
	for _, k := range slices.SortedFunc(maps.Keys(r.members), memberKey.compare) {
		members = append(members, r.members[k])
	}
	return members
}

func (k memberKey) compare(other memberKey) int {
	order := cmp.Or(cmp.Compare(k.actor, other.actor), cmp.Compare(k.session, other.session))
	for _, key := range twinrail.Keys() {
		order = cmp.Or(order, cmp.Compare(k.address.Get(key), other.address.Get(key)))
	}
	return order
}
