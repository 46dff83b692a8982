//go:build sabotage

package sabotage

import "slices"

// tokenWays are those that a token opens, each with a request of its own.
var (
	tokenWays  = []string{"sse-live", "ws-live", "history", "publish-http"}
	everyToken = []cells{{tokenWays, slices.Concat(credential, grantable)}}
	someTokens = []cells{{tokenWays, append(only("canvas_id", "panel_id", "thread_id"), credential...)}}
)

// anyAlgorithm has the parser take every algorithm.
var anyAlgorithm = edit{"internal/auth/verify.go", `jwt.WithValidMethods(algorithms), `, ``}

// signed: what makes a token one of its issuer's.
var signed = []sabotage{
	{
		name:  "a token's signature is not looked at",
		edits: []edit{{"internal/auth/verify.go", "\tif err != nil {\n\t\treturn nil, refusal(err)", "\tif err != nil && !errors.Is(err, jwt.ErrTokenSignatureInvalid) {\n\t\treturn nil, refusal(err)"}},
		leaks: everyToken,
	},
	{
		name:  "an issuer's signature is not looked at",
		in:    issued,
		edits: []edit{{"internal/auth/verify.go", "\tif err != nil {\n\t\treturn nil, refusal(err)", "\tif err != nil && !errors.Is(err, jwt.ErrTokenSignatureInvalid) {\n\t\treturn nil, refusal(err)"}},
		leaks: someTokens,
	},
	{
		name: "the algorithm none signs",
		edits: []edit{
			anyAlgorithm,
			{"internal/auth/verify.go", "\talg := t.Method.Alg()\n", "\talg := t.Method.Alg()\n\tif alg == \"none\" {\n\t\treturn jwt.UnsafeAllowNoneSignatureType, nil\n\t}\n"},
		},
		leaks: someTokens,
	},
	{
		// As with a library that takes the text of a key, and has the token say of
		// what kind it is.
		name: "a public key is a secret too",
		in:   issued,
		edits: []edit{
			anyAlgorithm,
			{"internal/auth/verify.go", "\t\"context\"\n", "\t\"context\"\n\t\"crypto/x509\"\n\t\"encoding/pem\"\n"},
			{"internal/auth/verify.go", "\tfor i := range v.keys {\n", `	for i := range v.keys {
		if der, err := x509.MarshalPKIXPublicKey(v.keys[i].material); err == nil && slices.Contains(hmacAlgorithms, alg) {
			found = append(found, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		}
`},
		},
		leaks: someTokens,
	},
	{
		name: "a token does not expire",
		edits: []edit{{"internal/auth/claims.go", `func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return date(c.ExpiresAt) }`, `func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) {
	d, err := date(c.ExpiresAt)
	if d != nil {
		d.Time = d.Add(1000 * time.Hour)
	}
	return d, err
}`}},
		leaks: someTokens,
	},
	{
		name: "a token need not expire",
		edits: []edit{
			{"internal/auth/verify.go", `jwt.WithExpirationRequired(), `, ``},
			{"internal/auth/claims.go", `err != nil || expires == nil {`, "err != nil {\n\t\treturn twinrail.Identity{}, badClaim(\"exp\")\n\t} else if id.ExpiresAt = time.Now().Add(time.Hour); expires == nil {"},
			{"internal/auth/claims.go", "== nil {\n\t\treturn twinrail.Identity{}, badClaim(\"exp\")\n\t} else {", "== nil {\n\t} else {"},
		},
		leaks: someTokens,
	},
	{
		name:  "a token is good before its time",
		edits: []edit{{"internal/auth/claims.go", `return date(c.NotBefore)`, `return nil, nil`}},
		leaks: someTokens,
	},
	{
		name:  "every issuer's tokens are taken",
		in:    issued,
		edits: []edit{{"internal/auth/verify.go", `if o.Issuer != "" {`, `if false {`}},
		leaks: someTokens,
	},
	{
		name:  "tokens for every audience are taken",
		in:    issued,
		edits: []edit{{"internal/auth/verify.go", `if len(o.Audiences) > 0 {`, `if false {`}},
		leaks: someTokens,
	},
}
