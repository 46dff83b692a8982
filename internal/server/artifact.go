package server

import (
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/journal"
)

// artifactKinds are those that there are.
var artifactKinds = [...]string{twinrail.ArtifactPreview, twinrail.ArtifactReplay, twinrail.ArtifactAudit}

// artifactKind returns the kind in an artifact's data, or "" where there is none
// of those that there are.
func artifactKind(data []byte) string {
	var a struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(data, &a, lenient); err != nil || !slices.Contains(artifactKinds[:], a.Kind) {
		return ""
	}
	return a.Kind
}

// labelEntry returns the kind of an artifact, by which subscribers may choose.
func labelEntry(e *journal.Entry) string {
	if e.Channel != twinrail.Artifact {
		return ""
	}
	// The tail of an event is the members of its JSON from some on.
	var tail struct {
		Data jsontext.Value `json:"data"`
	}
	_ = json.Unmarshal(append([]byte("{"), e.Tail[1:]...), &tail, lenient)
	return artifactKind(tail.Data)
}

// kindFilter is the set of kinds that a subscriber wants of artifacts, a bit for
// each in the order of artifactKinds. 0 wants all.
type kindFilter uint8

// parseKinds reads the parameter kinds: a list, separated by commas, for those
// who ask for artifacts.
func parseKinds(q url.Values, channels twinrail.ChannelSet) (kindFilter, error) {
	list := q.Get("kinds")
	if list == "" {
		return 0, nil
	}
	if !channels.Has(twinrail.Artifact) {
		return 0, twinrail.Errorf(twinrail.CodeBadRequest, "kinds", "is for the channel artifact, which is not asked for, or not granted")
	}
	var f kindFilter
	for kind := range strings.SplitSeq(list, ",") {
		i := slices.Index(artifactKinds[:], kind)
		if i < 0 {
			return 0, twinrail.Errorf(twinrail.CodeBadRequest, "kinds", "must list %s, separated by commas", strings.Join(artifactKinds[:], ", "))
		}
		f |= 1 << i
	}
	return f, nil
}

// wants reports whether an entry on channel, with that label, is wanted.
func (f kindFilter) wants(channel twinrail.Channel, label string) bool {
	if f == 0 || channel != twinrail.Artifact {
		return true
	}
	i := slices.Index(artifactKinds[:], label)
	return i >= 0 && f&(1<<i) != 0
}
