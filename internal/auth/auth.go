// Package auth decides who is asking and what they may reach.
//
// It verifies credentials, checks the RequestContext against them, and is the
// only maker of authorized addresses: journal and hub take a [Reader] or a
// [Writer] and nothing else, so that a path on which the check was forgotten
// does not compile.
package auth
