package pipeline_test

import (
	"testing"
)

// TestPostgres runs the tests again on PostgreSQL: see dbtest.At.
func TestPostgres(t *testing.T) {
	t.Run("NewAdvisoryFlagsStoredImagesWithNothingReadAgain", TestNewAdvisoryFlagsStoredImagesWithNothingReadAgain)
	t.Run("LayerIsReadOnce", TestLayerIsReadOnce)
	t.Run("UpperLayersHide", TestUpperLayersHide)
	t.Run("WhatCannotBeReadIsSaid", TestWhatCannotBeReadIsSaid)
	t.Run("NamedButNotHeldLayerTellsNothing", TestNamedButNotHeldLayerTellsNothing)
	t.Run("WorkSurvivesARestart", TestWorkSurvivesARestart)
	t.Run("MalformedImportChangesNothing", TestMalformedImportChangesNothing)
	t.Run("OldGenerationsGo", TestOldGenerationsGo)
	t.Run("AnotherIndexerLooksAgain", TestAnotherIndexerLooksAgain)
	t.Run("HistoryOfAnImage", TestHistoryOfAnImage)
	t.Run("EventsExpandToImages", TestEventsExpandToImages)
	t.Run("EveryKindIsStored", TestEveryKindIsStored)
	t.Run("Clamd", TestClamd)
	t.Run("MalwareLists", TestMalwareLists)
	t.Run("BillsAreAttached", TestBillsAreAttached)
	t.Run("BillsOfTwoReplicas", TestBillsOfTwoReplicas)
	t.Run("FeedsComeTogether", TestFeedsComeTogether)
	t.Run("PushesAndFeedsTogether", TestPushesAndFeedsTogether)
	t.Run("SignaturesAreCheckedWhenTheyArrive", TestSignaturesAreCheckedWhenTheyArrive)
	t.Run("BrokenSignatures", TestBrokenSignatures)
	t.Run("StatementsOfStrangeTypes", TestStatementsOfStrangeTypes)
	t.Run("SignaturesComeAndGo", TestSignaturesComeAndGo)
	t.Run("MatchOfEverything", TestMatchOfEverything)
	t.Run("MatchOfEverythingTells", TestMatchOfEverythingTells)
}
