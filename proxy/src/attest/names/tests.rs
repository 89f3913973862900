use super::{Names, TTL, USERS_MAX};

#[tokio::test(start_paused = true)]
async fn a_name_is_believed_for_a_while() {
    let names = Names::default();
    assert_eq!(names.known(0), None);
    assert_eq!(names.find(0).unwrap().as_deref(), Some("root"));
    assert_eq!(names.known(0), Some(Some("root".to_owned())));
    tokio::time::advance(TTL).await;
    assert_eq!(names.known(0), None);
}

#[tokio::test(start_paused = true)]
async fn a_user_without_a_name_is_remembered_too_and_the_memory_is_bounded() {
    let names = Names::default();
    let first = 3_000_000_000;
    for uid in first..first + u32::try_from(USERS_MAX).unwrap() + 10 {
        assert_eq!(names.find(uid).unwrap(), None);
    }
    assert_eq!(names.users.lock().unwrap().len(), USERS_MAX);
    assert_eq!(names.known(first + 1000), Some(None));
}

#[tokio::test(start_paused = true)]
async fn a_group_is_found_by_its_name_and_believed_for_a_while() {
    let names = Names::default();
    assert_eq!(names.known_group("root"), None);
    assert_eq!(names.find_group("root").unwrap(), Some(0));
    assert_eq!(names.known_group("root"), Some(Some(0)));
    assert_eq!(names.find_group("no-such-group").unwrap(), None);
    assert_eq!(names.known_group("no-such-group"), Some(None));
    tokio::time::advance(TTL).await;
    assert_eq!(names.known_group("root"), None);
    assert_eq!(Names::of_groups(&[0, 3_000_000_000]).unwrap(), ["root"]);
}
