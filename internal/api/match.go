package api

import (
	"encoding/json"
	"net/http"

	"github.com/gatehouse-dev/gatehouse"
)

// flawNameMax bounds what a flaw may be called, in bytes.
const flawNameMax = 200

func (h handler) match(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	inv, err := readInventory(w, r, actor)
	if err != nil {
		return err
	}
	v, err := h.Advisories.Match(r.Context(), inv)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) explain(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	inv, err := readInventory(w, r, actor)
	if err != nil {
		return err
	}
	id := r.URL.Query().Get("id")
	if id == "" || len(id) > flawNameMax {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "id has %d bytes, 1 to %d are a name", len(id), flawNameMax).WithHint("for example ?id=CVE-2024-6387")
	}
	v, err := h.Advisories.Explain(r.Context(), inv, id)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

// readInventory reads the inventory that an account sends. Errors: CodeDenied,
// CodeInvalid, CodeTooLarge.
func readInventory(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) (gatehouse.Inventory, error) {
	if err := known(actor); err != nil {
		return gatehouse.Inventory{}, err
	}
	body, err := readAll(w, r, MatchSizeMax)
	if err != nil {
		return gatehouse.Inventory{}, err
	}
	var inv struct {
		gatehouse.Inventory
		Packages packages `json:"packages"`
	}
	if err := json.Unmarshal(body, &inv); err != nil {
		if gatehouse.CodeOf(err) == gatehouse.CodeTooLarge {
			return gatehouse.Inventory{}, err
		}
		return gatehouse.Inventory{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the inventory is not valid JSON: %w", err)
	}
	inv.Inventory.Packages = inv.Packages
	return inv.Inventory, nil
}
