package server

import "github.com/twinrail/twinrail"

// renewalPath is where the connection of that id is given another credential.
func renewalPath(id string) string {
	return twinrail.PathConnections + id + "/auth?tenant_id=t_acme&env=dev"
}
